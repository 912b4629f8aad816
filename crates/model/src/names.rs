//! Names: apps, services, revisions and replicas.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is not a DNS label: use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"
)]
pub struct NameError {
    /// The name as it was given.
    pub name: String,
}

/// Whether `name` is a DNS label in lower case (RFC 1123, section 2.1; RFC 1035, section 2.3.4).
pub fn is_dns_label(name: &str) -> bool {
    let bytes = name.as_bytes();
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(inner)
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
}

macro_rules! dns_label {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Takes `name` if it is a DNS label in lower case.
            ///
            /// # Errors
            /// [`NameError`] otherwise.
            pub fn new(name: &str) -> Result<Self, NameError> {
                if is_dns_label(name) { Ok(Self(name.to_owned())) } else { Err(NameError { name: name.to_owned() }) }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(&name)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

dns_label! {
    /// An app: what one manifest describes.
    AppName
}
dns_label! {
    /// A service of an app: one workload.
    ServiceName
}

/// A service, named within the node: `app/service`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceId {
    /// The app.
    pub app: AppName,
    /// The service in it.
    pub service: ServiceName,
}

impl ServiceId {
    /// Joins two names that were checked before.
    pub fn new(app: AppName, service: ServiceName) -> Self {
        Self { app, service }
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.service)
    }
}

impl FromStr for ServiceId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let (app, service) = text.split_once('/').ok_or_else(|| NameError {
            name: text.to_owned(),
        })?;
        Ok(Self {
            app: AppName::new(app)?,
            service: ServiceName::new(service)?,
        })
    }
}

impl TryFrom<String> for ServiceId {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ServiceId> for String {
    fn from(id: ServiceId) -> String {
        id.to_string()
    }
}

/// A revision of a service: 1, 2, 3, ... in the order of its deploys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RevisionId(pub u32);

impl fmt::Display for RevisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A replica, named within the node and never used twice; a smaller one is older.
///
/// Shown and serialized as 12 hexadecimal digits: the start number of the control plane that made it
/// (24 bits), then a counter (24 bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReplicaId(pub u64);

impl ReplicaId {
    /// The `counter`-th replica made in the `life`-th start of the control plane.
    pub fn new(life: u32, counter: u32) -> Self {
        Self((u64::from(life) << 24 | u64::from(counter & 0xff_ffff)) & 0xffff_ffff_ffff)
    }

    /// Its counter, if it was made in the `life`-th start.
    pub fn counter_of(self, life: u32) -> Option<u32> {
        let counter = u32::try_from(self.0 & 0xff_ffff).ok()?;
        (Self::new(life, counter) == self).then_some(counter)
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}

impl FromStr for ReplicaId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError {
            name: text.to_owned(),
        };
        if text.len() != 12 {
            return Err(wrong());
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| wrong())
    }
}

impl TryFrom<String> for ReplicaId {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ReplicaId> for String {
    fn from(id: ReplicaId) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_label_in_lower_case() {
        for good in ["a", "web", "a-b", "0", &"x".repeat(63)] {
            assert!(AppName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "ä", &"x".repeat(64)] {
            assert!(AppName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_replica_id_survives_its_text() {
        let id = ReplicaId::new(3, 31);
        assert_eq!(id.to_string(), "00000300001f");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(ReplicaId::new(1, 9) < ReplicaId::new(2, 0));
    }
}
