//! Powers: the sizes of a replica that have a name, so that nobody need think in bytes and millicores.

use serde::{Deserialize, Serialize};

use crate::spec::Resources;

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

/// Gives a container the limits of a power. What it asks for at least stays no more than that.
pub fn apply(power: &Power, resources: &mut Resources) {
    resources.cpu_limit_milli = Some(power.cpu_milli);
    resources.memory_limit_bytes = Some(power.memory_bytes);
    let at_most = |asked: Option<u64>, limit: u64| asked.map(|asked| asked.min(limit));
    resources.cpu_request_milli = at_most(resources.cpu_request_milli, power.cpu_milli);
    resources.memory_request_bytes = at_most(resources.memory_request_bytes, power.memory_bytes);
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

    #[test]
    fn a_power_limits_and_asks_for_no_more_than_it_limits() {
        let mut resources = Resources {
            memory_request_bytes: Some(64 * MIB),
            cpu_request_milli: Some(400),
            pids_limit: Some(7),
            ..Resources::default()
        };
        apply(&ladder()[0], &mut resources);
        let should = Resources {
            memory_limit_bytes: Some(512 * MIB),
            cpu_limit_milli: Some(250),
            pids_limit: Some(7),
            memory_request_bytes: Some(64 * MIB),
            cpu_request_milli: Some(250),
        };
        assert_eq!(resources, should);
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
