//! Powers: the sizes of a replica that have a name, so that nobody need think in bytes and millicores.

use serde::{Deserialize, Serialize};

use crate::spec::{Limits, Resources, ServiceSpec};

/// How much of the machine one replica may use, under a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Power {
    /// What it is called.
    pub name: String,
    /// Most CPU, in thousandths of a core.
    pub cpu_milli: u64,
    /// Most memory, in bytes.
    pub memory_bytes: u64,
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The powers that every node has, from the least to the most: name, thousandths of a core, bytes.
///
/// The names and the first steps are those of the cloud container services that sell by power (Amazon Lightsail's
/// "power" of a container service, from nano with 0.25 vCPU and 512 MB to xlarge with 4 vCPU). From small on there are 2 GiB
/// to a core: what a machine of one's own usually has, and half of what is sold there.
pub const LADDER: [(&str, u64, u64); 6] = [
    ("nano", 250, 512 * MIB),
    ("micro", 250, GIB),
    ("small", 500, GIB),
    ("medium", 1_000, 2 * GIB),
    ("large", 2_000, 4 * GIB),
    ("xlarge", 4_000, 8 * GIB),
];

/// So long may the name of a preset be, in characters.
pub const NAME_MAX: usize = 32;

/// The least CPU that a preset may give, in thousandths of a core: with less, a program hardly starts.
pub const CPU_MIN_MILLI: u64 = 10;

/// The least memory that a preset may give, in bytes: with less, no container starts.
pub const MEMORY_MIN_BYTES: u64 = 6 * MIB;

/// The powers that every node has.
pub fn ladder() -> Vec<Power> {
    let rung = |(name, cpu_milli, memory_bytes): (&str, u64, u64)| Power {
        name: name.to_owned(),
        cpu_milli,
        memory_bytes,
    };
    LADDER.into_iter().map(rung).collect()
}

/// Whether a name is of the ladder.
pub fn is_built_in(name: &str) -> bool {
    LADDER.iter().any(|(rung, _, _)| *rung == name)
}

/// The ladder with the node's own presets, from the least to the most.
pub fn table(presets: Vec<Power>) -> Vec<Power> {
    let mut all = ladder();
    all.extend(presets);
    all.sort_by(|a, b| order(a).cmp(&order(b)));
    all
}

/// What is wrong with a preset of the node's own, if anything.
pub fn refuse(preset: &Power) -> Option<String> {
    let name = &preset.name;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= NAME_MAX
        && name.chars().all(plain);
    if !fits {
        return Some(format!(
            "{name:?} is no name of a power: it is a small letter, then up to {} of small letters, digits and hyphens",
            NAME_MAX - 1
        ));
    }
    if is_built_in(name) {
        return Some(format!(
            "{name} is a power that every node has: give yours another name"
        ));
    }
    if preset.cpu_milli < CPU_MIN_MILLI {
        return Some(format!(
            "{} CPU is too little for {name}: give it {} or more",
            cpu(preset.cpu_milli),
            cpu(CPU_MIN_MILLI)
        ));
    }
    if preset.memory_bytes < MEMORY_MIN_BYTES {
        return Some(format!(
            "{} of memory is too little for {name}: give it {} or more",
            memory(preset.memory_bytes),
            memory(MEMORY_MIN_BYTES)
        ));
    }
    None
}

/// Gives a container the limits of a power.
fn apply(power: &Power, resources: &mut Resources) {
    resources.cpu_limit_milli = Some(power.cpu_milli);
    resources.memory_limit_bytes = Some(power.memory_bytes);
}

/// There is no power of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no power called {name:?}: there are {}", there.join(", "))]
pub struct Unknown {
    /// The name.
    pub name: String,
    /// Those that there are.
    pub there: Vec<String>,
}

/// The power of a name.
///
/// # Errors
/// There is none.
pub fn find<'a>(table: &'a [Power], name: &str) -> Result<&'a Power, Unknown> {
    let found = table.iter().find(|power| power.name == name);
    found.ok_or_else(|| Unknown {
        name: name.to_owned(),
        there: table.iter().map(|power| power.name.clone()).collect(),
    })
}

/// Gives a manifest's service the limits that hold: those of its power, or those of `layby power` if the manifest says
/// the same as when that was said. `before` is what the service is at.
///
/// Gives the power that `layby power` said and that holds no longer.
///
/// # Errors
/// The manifest names a power that there is not.
pub fn settle(
    table: &[Power],
    before: Option<&ServiceSpec>,
    spec: &mut ServiceSpec,
) -> Result<Option<String>, Unknown> {
    let said = limits(spec);
    resolve(table, spec)?;
    let Some((before, overridden)) = before.and_then(|b| Some((b, b.overridden.as_ref()?))) else {
        return Ok(None);
    };
    if *overridden != said {
        return Ok(before.power.clone());
    }
    spec.power.clone_from(&before.power);
    let held = before.containers.first().map(|first| first.resources);
    resources(spec, |resources| *resources = held.unwrap_or_default());
    spec.overridden = Some(said);
    Ok(None)
}

/// Gives a service a power, whatever its manifest says.
///
/// # Errors
/// There is no such power, or its manifest's no longer.
pub fn give(table: &[Power], name: &str, spec: &mut ServiceSpec) -> Result<(), Unknown> {
    let power = find(table, name)?;
    let said = spec.overridden.take().unwrap_or_else(|| limits(spec));
    put(said.clone(), spec);
    spec.power = Some(name.to_owned());
    resources(spec, |resources| apply(power, resources));
    // What the manifest says anyway is not said over it.
    if said.power.as_deref() != Some(name) {
        spec.overridden = Some(said);
    }
    Ok(())
}

/// Lets what the manifest says hold again.
///
/// # Errors
/// The power that it names is no longer there.
pub fn take_back(table: &[Power], spec: &mut ServiceSpec) -> Result<(), Unknown> {
    if let Some(said) = spec.overridden.take() {
        put(said, spec);
        resolve(table, spec)?;
    }
    Ok(())
}

/// What a manifest's power means.
fn resolve(table: &[Power], spec: &mut ServiceSpec) -> Result<(), Unknown> {
    if let Some(name) = &spec.power {
        let power = find(table, name)?;
        resources(spec, |resources| apply(power, resources));
    }
    Ok(())
}

/// What is said of a service, without what its power means: nobody says limits beside a power.
fn limits(spec: &ServiceSpec) -> Limits {
    let first = spec.containers.first();
    let mut resources = first.map(|first| first.resources).unwrap_or_default();
    if spec.power.is_some() {
        (resources.cpu_limit_milli, resources.memory_limit_bytes) = (None, None);
    }
    Limits {
        power: spec.power.clone(),
        resources,
    }
}

fn put(limits: Limits, spec: &mut ServiceSpec) {
    spec.power = limits.power;
    resources(spec, |resources| *resources = limits.resources);
}

fn resources(spec: &mut ServiceSpec, change: impl FnOnce(&mut Resources)) {
    if let Some(first) = spec.containers.first_mut() {
        change(&mut first.resources);
    }
}

/// `0.25`, `4`: CPU for people, in cores.
pub fn cpu(milli: u64) -> String {
    let text = format!("{}.{:03}", milli / 1000, milli % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `512 MB`, `1.5 GB`: memory for people. As everywhere in Layby, these are powers of two.
pub fn memory(bytes: u64) -> String {
    // Tenths, rounded up: what is said to be needed is enough.
    let in_unit = |unit: u64, name: &str| {
        let tenths = bytes.saturating_mul(10).div_ceil(unit);
        match tenths % 10 {
            0 => format!("{} {name}", tenths / 10),
            rest => format!("{}.{rest} {name}", tenths / 10),
        }
    };
    if bytes >= GIB {
        in_unit(GIB, "GB")
    } else {
        in_unit(MIB, "MB")
    }
}

fn order(power: &Power) -> (u64, u64, &str) {
    (power.memory_bytes, power.cpu_milli, &power.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::ServiceName;
    use crate::spec::ContainerSpec;

    fn preset(name: &str, cpu_milli: u64, memory_bytes: u64) -> Power {
        Power {
            name: name.to_owned(),
            cpu_milli,
            memory_bytes,
        }
    }

    #[test]
    fn each_rung_gives_no_less_than_the_one_below_and_more_of_something() {
        for pair in LADDER.windows(2) {
            let ((_, cpu, memory), (name, more_cpu, more_memory)) = (pair[0], pair[1]);
            assert!(more_cpu >= cpu && more_memory >= memory, "{name}");
            assert!((more_cpu, more_memory) != (cpu, memory), "{name}");
        }
        assert_eq!(LADDER[0], ("nano", 250, 512 << 20));
        assert_eq!(LADDER[5], ("xlarge", 4_000, 8 << 30));
    }

    #[test]
    fn own_presets_stand_in_their_place_in_the_table() {
        let all = table(vec![preset("batch", 1_500, 3 << 30)]);
        let names: Vec<&str> = all.iter().map(|power| power.name.as_str()).collect();
        let order = [
            "nano", "micro", "small", "medium", "batch", "large", "xlarge",
        ];
        assert_eq!(names, order);
    }

    #[test]
    fn a_preset_that_makes_no_sense_is_refused_with_the_reason() {
        assert_eq!(refuse(&preset("batch", 1_500, 3 << 30)), None);
        for (wrong, why) in [
            (preset("", 250, GIB), "no name of a power"),
            (preset("Batch", 250, GIB), "no name of a power"),
            (preset("9", 250, GIB), "no name of a power"),
            (preset("small", 250, GIB), "every node has"),
            (
                preset("tiny", 9, GIB),
                "0.009 CPU is too little for tiny: give it 0.01",
            ),
            (
                preset("tiny", 10, MIB),
                "1 MB of memory is too little for tiny: give it 6 MB",
            ),
        ] {
            let told = refuse(&wrong).expect("refused");
            assert!(told.contains(why), "{told}");
        }
    }

    /// A service as its manifest says it.
    fn manifest(power: Option<&str>, memory_limit_bytes: Option<u64>) -> ServiceSpec {
        let mut container = ContainerSpec::new("web", "image");
        container.resources.memory_limit_bytes = memory_limit_bytes;
        container.resources.pids_limit = Some(7);
        ServiceSpec {
            containers: vec![container],
            power: power.map(str::to_owned),
            ..ServiceSpec::new(ServiceName::new("web").expect("a label"))
        }
    }

    fn given(power: &str, mut spec: ServiceSpec) -> ServiceSpec {
        give(&ladder(), power, &mut spec).expect("a power");
        spec
    }

    fn memory_of(spec: &ServiceSpec) -> Option<u64> {
        let resources = spec.containers[0].resources;
        assert_eq!(resources.pids_limit, Some(7), "a power says nothing of it");
        resources.memory_limit_bytes
    }

    #[test]
    fn a_power_of_the_manifest_is_looked_up_and_an_unknown_one_refused() {
        let mut spec = manifest(Some("nano"), None);
        assert_eq!(settle(&ladder(), None, &mut spec), Ok(None));
        assert_eq!(memory_of(&spec), Some(512 * MIB));
        assert_eq!(spec.overridden, None);
        let unknown = settle(&ladder(), None, &mut manifest(Some("nanno"), None));
        let text = "there is no power called \"nanno\": there are nano, micro, small, medium, large, xlarge";
        assert_eq!(unknown.expect_err("unknown").to_string(), text);
    }

    #[test]
    fn what_was_said_by_hand_holds_until_the_manifest_says_something_else() {
        for (first, then, holds) in [
            (manifest(None, None), manifest(None, None), true),
            (manifest(None, None), manifest(Some("nano"), None), false),
            (manifest(None, None), manifest(None, Some(GIB)), false),
            (
                manifest(Some("nano"), None),
                manifest(Some("nano"), None),
                true,
            ),
            (manifest(Some("nano"), None), manifest(None, None), false),
            (manifest(None, Some(GIB)), manifest(None, Some(GIB)), true),
        ] {
            let mut live = first.clone();
            settle(&ladder(), None, &mut live).expect("a power");
            let live = given("medium", given("large", live));
            assert_eq!(memory_of(&live), Some(2 * GIB));
            let mut next = then.clone();
            let lost = settle(&ladder(), Some(&live), &mut next).expect("a power");
            assert_eq!(lost.is_none(), holds, "{first:?} {then:?}");
            if holds {
                assert_eq!(next, live);
            } else {
                assert_eq!(lost.as_deref(), Some("medium"));
                let mut alone = then;
                settle(&ladder(), None, &mut alone).expect("a power");
                assert_eq!(next, alone);
            }
        }
    }

    #[test]
    fn what_the_manifest_says_can_be_taken_back_to() {
        for said in [manifest(None, Some(GIB)), manifest(Some("nano"), None)] {
            let mut live = said;
            settle(&ladder(), None, &mut live).expect("a power");
            let mut back = given("large", live.clone());
            take_back(&ladder(), &mut back).expect("a power");
            assert_eq!(back, live);
        }
        let nano = {
            let mut nano = manifest(Some("nano"), None);
            settle(&ladder(), None, &mut nano).expect("a power");
            nano
        };
        assert_eq!(given("nano", given("large", nano.clone())), nano);
    }

    #[test]
    fn figures_are_as_people_write_them() {
        assert_eq!(
            [cpu(250), cpu(4_000), cpu(1_500), cpu(5)],
            ["0.25", "4", "1.5", "0.005"]
        );
        let said = [512 * MIB, GIB, 3 * GIB / 2, 8 * GIB, GIB + 1].map(memory);
        assert_eq!(said, ["512 MB", "1 GB", "1.5 GB", "8 GB", "1.1 GB"]);
    }
}
