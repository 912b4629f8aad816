//! The values that a replica's containers are handed beside its spec: gathered while that is made, filled in when all
//! of the replica is known. They pass through here in memory alone.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use layby_model::engine::RunSpec;
use layby_model::replica::Trouble;
use layby_model::secret::{
    ReplicaField, SecretError, SecretRef, SecretValue, SecretWire, ValueSource, refs,
};
use layby_model::{AppName, ReplicaId};
use layby_runtime::Values;
use zeroize::Zeroizing;

/// The values of secrets and configs, by what the revision names them.
pub(crate) type Known = BTreeMap<SecretRef, SecretValue>;

/// What only the replica itself knows.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) app: AppName,
    pub(crate) id: ReplicaId,
    pub(crate) address: Ipv4Addr,
    pub(crate) gateway: Ipv4Addr,
}

/// The values to come, each of parts one after another; a value's number is its place.
#[derive(Debug, Default)]
pub(crate) struct Slots(Vec<Vec<ValueSource>>);

impl Slots {
    /// A place for a value.
    pub(crate) fn add(&mut self, parts: &[ValueSource]) -> usize {
        let known = self.0.iter().position(|other| other == parts);
        known.unwrap_or_else(|| {
            self.0.push(parts.to_vec());
            self.0.len() - 1
        })
    }

    /// Puts the values together.
    pub(crate) fn fill(&self, known: &Known, facts: &Facts) -> Result<Values, Trouble> {
        let mut values = Values::default();
        for parts in &self.0 {
            let mut value = Zeroizing::new(Vec::new());
            for part in parts {
                match part {
                    ValueSource::Text(text) => extend(&mut value, text.as_bytes()),
                    ValueSource::Replica(field) => {
                        extend(&mut value, fact(*field, facts).as_bytes());
                    }
                    ValueSource::Secret(secret) => match known.get(secret) {
                        Some(found) => extend(&mut value, found.bytes()),
                        None => {
                            return Err(Trouble {
                                fatal: false,
                                message: format!("the secret {} was not asked for", secret.name),
                            });
                        }
                    },
                }
            }
            values.add(value);
        }
        Ok(values)
    }
}

/// Appends without leaving a copy behind where the old memory was too small.
fn extend(value: &mut Zeroizing<Vec<u8>>, more: &[u8]) {
    let mut longer = Zeroizing::new(Vec::with_capacity(value.len() + more.len()));
    longer.extend_from_slice(value);
    longer.extend_from_slice(more);
    *value = longer;
}

fn fact(field: ReplicaField, facts: &Facts) -> String {
    match field {
        ReplicaField::App => facts.app.to_string(),
        ReplicaField::Id => facts.id.to_string(),
        // What has a number was told it when it was ordered.
        ReplicaField::CompletionIndex => String::new(),
        ReplicaField::Address => facts.address.to_string(),
        ReplicaField::MachineAddress => facts.gateway.to_string(),
        ReplicaField::MachineCpu { milli } => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            (cores as u64 * 1000).div_ceil(milli.max(1)).to_string()
        }
        ReplicaField::MachineMemory { bytes } => {
            let all = layby_runtime::machine::memory_bytes("layby").unwrap_or(0);
            all.div_ceil(bytes.max(1)).to_string()
        }
        ReplicaField::MachineName => {
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
            name.unwrap_or_default().trim().to_owned()
        }
    }
}

/// Asks for all values that a revision names.
pub(crate) async fn known(
    wire: &SecretWire,
    app: &AppName,
    spec: &RunSpec,
) -> Result<Known, Trouble> {
    let mut known = Known::new();
    for secret in refs(&spec.service) {
        if known.contains_key(secret) {
            continue;
        }
        let value = wire.reveal(app, secret).await.map_err(|error| Trouble {
            fatal: matches!(error, SecretError::NotFound(_)),
            message: error.to_string(),
        })?;
        known.insert(secret.clone(), value);
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_put_together_of_its_parts_and_kept_once() {
        let secret = SecretRef::new("db");
        let parts = [
            ValueSource::Text("tcp://u:".to_owned()),
            ValueSource::Secret(secret.clone()),
            ValueSource::Text("@".to_owned()),
            ValueSource::Replica(ReplicaField::Address),
        ];
        let mut slots = Slots::default();
        let first = slots.add(&parts);
        assert_eq!(slots.add(&parts[1..2]), first + 1);
        assert_eq!(slots.add(&parts), first);
        let facts = Facts {
            app: AppName::new("shop").expect("a label"),
            id: ReplicaId(7),
            address: Ipv4Addr::new(10, 0, 0, 2),
            gateway: Ipv4Addr::new(10, 0, 0, 1),
        };
        assert!(slots.fill(&Known::new(), &facts).is_err());
        let known = [(secret, SecretValue::new(b"pw".to_vec()))].into();
        let values = slots.fill(&known, &facts).expect("filled");
        assert_eq!(values.get(first), Some(&b"tcp://u:pw@10.0.0.2"[..]));
        assert_eq!(values.get(first + 1), Some(&b"pw"[..]));
    }
}
