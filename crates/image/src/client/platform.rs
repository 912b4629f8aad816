//! Platforms, and which manifest of an index is for which (image-spec, image-index.md).

use std::fmt;
use std::str::FromStr;

use super::error::{Failure, Fault};
use crate::Error;
use crate::layout::{self, Descriptor, Index};

/// An operating system, an architecture, and perhaps a variant of it, in Go's words: `linux/arm64/v8`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, `arm`, ...
    pub architecture: String,
    /// `v7`, `v3`, ...; `None`: the usual one.
    pub variant: Option<String>,
}

impl Platform {
    /// This machine's.
    pub fn machine() -> Self {
        Self {
            os: "linux".to_owned(),
            architecture: layout::architecture().to_owned(),
            variant: machine_variant().map(str::to_owned),
        }
    }

    /// Whether an image of that platform is for this one: the same, or a variant that came before.
    pub fn takes(&self, other: &Self) -> bool {
        self.rank(other).is_some()
    }

    /// How well an image of that platform fits this one; more is better.
    fn rank(&self, other: &Self) -> Option<u32> {
        let other = other.clone().normal();
        if self.os != other.os || self.architecture != other.architecture {
            return None;
        }
        let level = |platform: &Self| match &platform.variant {
            Some(variant) => variant.strip_prefix('v')?.parse::<u32>().ok(),
            None => Some(usual_level(&platform.architecture)),
        };
        if self.variant == other.variant {
            return Some(u32::MAX);
        }
        level(&other).filter(|found| level(self).is_some_and(|most| *found <= most))
    }

    /// One spelling for each: `arm64/v8` and `amd64/v1` are the usual ones.
    fn normal(mut self) -> Self {
        let variant = self.variant.as_deref().unwrap_or_default();
        let (architecture, variant) = match (self.architecture.as_str(), variant) {
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("aarch64", variant) => ("arm64", variant),
            ("i386" | "i686", _) => ("386", ""),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            (other, variant) => (other, variant),
        };
        let variant = match (architecture, variant) {
            ("arm64", "v8" | "8") | ("amd64", "v1") => "",
            ("arm", "") => "v7",
            (_, variant) => variant,
        };
        let (architecture, variant) = (architecture.to_owned(), variant.to_owned());
        self.architecture = architecture;
        self.variant = Some(variant).filter(|variant| !variant.is_empty());
        self
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// `os/architecture[/variant]`, or the architecture alone.
    fn from_str(text: &str) -> Result<Self, Error> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [architecture] => ("linux", architecture, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => ("", "", None),
        };
        let word = |word: &str| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        if !word(os) || !word(architecture) || !variant.is_none_or(word) {
            return Err(Error::Malformed {
                what: format!("the platform {text:?}"),
                reason: "write it as linux/amd64 or linux/arm/v7".to_owned(),
            });
        }
        let platform = Self {
            os: os.to_ascii_lowercase(),
            architecture: architecture.to_ascii_lowercase(),
            variant: variant.map(str::to_ascii_lowercase),
        };
        Ok(platform.normal())
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl From<&layout::Platform> for Platform {
    fn from(found: &layout::Platform) -> Self {
        let platform = Self {
            os: found.os.clone(),
            architecture: found.architecture.clone(),
            variant: found.variant.clone().filter(|variant| !variant.is_empty()),
        };
        platform.normal()
    }
}

/// The entry of an index that fits best; of equals the first.
pub(super) fn choose<'a>(index: &'a Index, wanted: &Platform) -> Result<&'a Descriptor, Failure> {
    let mut best: Option<(u32, &Descriptor)> = None;
    let mut there: Vec<String> = Vec::new();
    for entry in &index.manifests {
        let Some(platform) = &entry.platform else {
            continue;
        };
        // What describes a build (attestations) is for no platform.
        if platform.os == "unknown" || platform.architecture == "unknown" {
            continue;
        }
        let platform = Platform::from(platform);
        let shown = platform.to_string();
        if let Some(rank) = wanted.rank(&platform)
            && best.is_none_or(|(known, _)| rank > known)
        {
            best = Some((rank, entry));
        }
        if !there.contains(&shown) {
            there.push(shown);
        }
    }
    if let Some((_, entry)) = best {
        return Ok(entry);
    }
    // An index of one image that says nothing about platforms means that image.
    if let ([only], true) = (&index.manifests[..], there.is_empty()) {
        return Ok(only);
    }
    there.truncate(20);
    let there = match there.is_empty() {
        true => "none that is named".to_owned(),
        false => there.join(", "),
    };
    Err(Failure::final_(
        Fault::Platform,
        format!("does not have it for {wanted}; there is: {there}"),
    ))
}

/// The variant that images without one are for.
fn usual_level(architecture: &str) -> u32 {
    match architecture {
        "amd64" => 1,
        "arm64" => 8,
        "arm" => 7,
        _ => 0,
    }
}

/// The newest of the x86-64 levels (System V ABI, table 3.1) that this machine has; `None` elsewhere.
#[cfg(target_arch = "x86_64")]
fn machine_variant() -> Option<&'static str> {
    let v2 = is_x86_feature_detected!("sse4.2")
        && is_x86_feature_detected!("ssse3")
        && is_x86_feature_detected!("popcnt")
        && is_x86_feature_detected!("cmpxchg16b");
    let v3 = v2
        && is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("movbe");
    match (v2, v3) {
        (_, true) => Some("v3"),
        (true, false) => Some("v2"),
        (false, false) => None,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn machine_variant() -> Option<&'static str> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[&str]) -> Index {
        let manifests = platforms.iter().enumerate().map(|(at, text)| {
            let parts: Vec<&str> = text.split('/').collect();
            let mut entry = Descriptor::new(layout::MANIFEST_TYPE, &format!("{at}"), 1);
            entry.platform = Some(layout::Platform {
                os: parts[0].to_owned(),
                architecture: parts[1].to_owned(),
                variant: parts.get(2).map(|variant| (*variant).to_owned()),
            });
            entry
        });
        Index {
            manifests: manifests.collect(),
            ..Index::default()
        }
    }

    #[test]
    fn the_best_variant_that_the_machine_can_run_is_chosen() {
        let all = [
            "linux/arm/v6",
            "linux/arm/v7",
            "linux/arm64/v8",
            "linux/amd64",
            "linux/amd64/v2",
            "linux/amd64/v4",
            "windows/amd64",
            "unknown/unknown",
        ];
        for (wanted, chosen) in [
            ("linux/amd64", "3"),
            ("amd64", "3"),
            ("linux/amd64/v2", "4"),
            ("linux/amd64/v3", "4"),
            ("linux/arm64", "2"),
            ("linux/aarch64", "2"),
            ("linux/arm", "1"),
            ("linux/arm/v6", "0"),
            ("linux/arm/v8", "1"),
        ] {
            let wanted: Platform = wanted.parse().unwrap();
            let index = index(&all);
            let entry = choose(&index, &wanted).unwrap();
            assert_eq!(entry.digest, chosen, "{wanted}");
        }
    }

    #[test]
    fn the_platforms_that_there_are_are_named() {
        let wanted: Platform = "linux/s390x".parse().unwrap();
        let index = index(&["linux/arm64/v8", "linux/amd64", "unknown/unknown"]);
        let Err(Failure::Registry { reason, .. }) = choose(&index, &wanted) else {
            panic!("nothing fits");
        };
        assert_eq!(
            reason,
            "does not have it for linux/s390x; there is: linux/arm64, linux/amd64"
        );
        assert!("linux/a/b/c".parse::<Platform>().is_err());
        assert!("".parse::<Platform>().is_err());
    }
}
