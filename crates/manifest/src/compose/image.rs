//! When an image is pulled and which of its platforms is meant: `pull_policy` and `platform`.

use layby_model::spec::PullPolicy;

use crate::fields::{Expected, Fields};
use crate::report::Report;
use crate::tree::Place;

/// Takes `pull_policy` off a service. `built`: it has a `build`.
pub(crate) fn pull(service: &mut Fields, built: bool, report: &mut Report) -> PullPolicy {
    let Some(place) = service.place_of("pull_policy") else {
        return PullPolicy::default();
    };
    let name = service.name("pull_policy");
    let every = |report: &mut Report, place: &Place| {
        let message = format!(
            "{name} is by age, which is not supported yet: the image is pulled when it is not there"
        );
        report.warn(place, message);
        PullPolicy::Missing
    };
    let said = service.parsed("pull_policy", report, |text| match text {
        "always" => Ok(Some(PullPolicy::Always)),
        "missing" | "if_not_present" => Ok(Some(PullPolicy::Missing)),
        "never" => Ok(Some(PullPolicy::Never)),
        "build" if built => Ok(Some(PullPolicy::Missing)),
        "build" => Err("always, missing or never (there is no \"build\")".to_owned()),
        "daily" | "weekly" => Ok(None),
        text if text.starts_with("every_") => Ok(None),
        _ => Err("always, missing, never or build".to_owned()),
    });
    match said {
        Some(Some(policy)) => policy,
        Some(None) => every(report, &place),
        None => PullPolicy::default(),
    }
}

/// A platform: `linux/amd64`, `linux/arm64/v8`; the system alone or the machine's kind alone count too, as in Docker.
pub(crate) fn platform(text: &str) -> Result<String, Expected> {
    let expected = || "a platform such as linux/amd64".to_owned();
    let parts: Vec<&str> = text.split('/').collect();
    let is_word = |part: &&str| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
    };
    if parts.len() > 3 || !parts.iter().all(is_word) {
        return Err(expected());
    }
    match parts[..] {
        ["linux"] | ["linux", ..] => Ok(text.to_ascii_lowercase()),
        [machine] => Ok(format!("linux/{}", machine.to_ascii_lowercase())),
        _ => Err("a platform of Linux, such as linux/amd64".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_of_linux() {
        assert_eq!(platform("linux/amd64").as_deref(), Ok("linux/amd64"));
        assert_eq!(platform("linux/arm64/v8").as_deref(), Ok("linux/arm64/v8"));
        assert_eq!(platform("AMD64").as_deref(), Ok("linux/amd64"));
        for bad in ["", "windows/amd64", "linux/", "linux/a/b/c", "a b"] {
            assert!(platform(bad).is_err(), "{bad}");
        }
    }
}
