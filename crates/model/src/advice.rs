//! Which power a service should have, by what it has used.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::power::{self, Power};

/// From one sample of a replica to the next, in milliseconds.
pub const SAMPLE_EVERY_MS: u64 = 15_000;

/// Fewer samples than this say nothing: ten minutes of one replica.
pub const SAMPLES_MIN: u64 = 40;

/// So much more than what was used is proposed, in hundredths: a fifth of CPU, since what is missing of it costs only time.
const CPU_ROOM: u64 = 120;
/// A quarter of memory: what is missing of it ends the program, and a peak between two samples is not seen.
const MEMORY_ROOM: u64 = 125;

/// How often which CPU was used. A bucket is a quarter of an octave: what is read out of it is at most 19 % too much.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Histogram(BTreeMap<u8, u64>);

impl Histogram {
    /// Counts a sample, in thousandths of a core.
    pub fn add(&mut self, milli: u64) {
        *self.0.entry(bucket(milli)).or_default() += 1;
    }

    /// Counts all that the other has counted.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.0 {
            let sum = self.0.entry(*bucket).or_default();
            *sum = sum.saturating_add(*count);
        }
    }

    /// What 95 of 100 samples do not pass, in thousandths of a core; 0 where there is none.
    pub fn p95_milli(&self) -> u64 {
        let count: u64 = self.0.values().sum();
        let rank = count.saturating_mul(95).div_ceil(100);
        let mut seen = 0;
        for (bucket, count) in &self.0 {
            seen += count;
            if seen >= rank && rank > 0 {
                return top(*bucket);
            }
        }
        0
    }
}

/// What a service has used while it was awake.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Used {
    /// So many samples, of all its replicas.
    pub samples: u64,
    /// The CPU of a replica.
    pub cpu: Histogram,
    /// The most memory of a replica that a sample saw, in bytes.
    pub memory_peak_bytes: u64,
}

impl Used {
    /// Counts a sample of a replica. `None`: its CPU is not known yet.
    pub fn add(&mut self, cpu_milli: Option<u64>, memory_bytes: u64) {
        if let Some(milli) = cpu_milli {
            self.samples += 1;
            self.cpu.add(milli);
        }
        self.memory_peak_bytes = self.memory_peak_bytes.max(memory_bytes);
    }

    /// Adds what was used at another time.
    pub fn merge(&mut self, other: &Self) {
        self.samples = self.samples.saturating_add(other.samples);
        self.cpu.merge(&other.cpu);
        self.memory_peak_bytes = self.memory_peak_bytes.max(other.memory_peak_bytes);
    }
}

/// What is proposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advice {
    /// Nothing: there is too little to go by.
    TooLittle,
    /// The power that it has.
    Keep(Power),
    /// Another one.
    Take(Power),
    /// Nothing: no power gives so much.
    TooMuch,
}

/// The least power that gives what was used with some room. `table` goes from the least to the most; `has` is the power
/// that the service has.
pub fn advise(table: &[Power], has: Option<&str>, used: &Used) -> Advice {
    if used.samples < SAMPLES_MIN {
        return Advice::TooLittle;
    }
    let cpu_milli = with_room(used.cpu.p95_milli(), CPU_ROOM);
    let memory_bytes = with_room(used.memory_peak_bytes, MEMORY_ROOM);
    let enough = |p: &&Power| p.cpu_milli >= cpu_milli && p.memory_bytes >= memory_bytes;
    match table.iter().find(enough) {
        Some(power) if has == Some(&power.name) => Advice::Keep(power.clone()),
        Some(power) => Advice::Take(power.clone()),
        None => Advice::TooMuch,
    }
}

/// What the data is and what follows from it, for people; one sentence each.
pub fn told(advice: &Advice, used: &Used) -> Vec<String> {
    let awake_s = used.samples * SAMPLE_EVERY_MS / 1000;
    let data = format!(
        "{} samples of its replicas, one each {} s while awake ({} in all)",
        used.samples,
        SAMPLE_EVERY_MS / 1000,
        span(awake_s)
    );
    let mut texts = vec![data];
    if *advice != Advice::TooLittle {
        texts.push(format!(
            "a replica used up to {} CPU in 95 of 100 of them, and {} of memory at most",
            power::cpu(used.cpu.p95_milli()),
            power::memory(used.memory_peak_bytes)
        ));
    }
    let room = "with a fifth of CPU and a quarter of memory to spare";
    texts.push(match advice {
        Advice::TooLittle => format!(
            "that is too little to go by: {} samples are needed",
            SAMPLES_MIN
        ),
        Advice::Keep(power) => format!("{room}, {} is right: it has it", power.name),
        Advice::Take(power) => format!(
            "{room}, {} is enough ({} CPU, {})",
            power.name,
            power::cpu(power.cpu_milli),
            power::memory(power.memory_bytes)
        ),
        Advice::TooMuch => format!("{room}, no power is enough: `layby power set` makes one"),
    });
    texts
}

/// `45 s`, `12 min`, `3.5 h`: rounded down.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{}.{} h", seconds / 3_600, seconds % 3_600 / 360),
    }
}

fn with_room(used: u64, hundredths: u64) -> u64 {
    used.saturating_mul(hundredths).div_ceil(100)
}

/// The tops of the buckets of one octave, in thousandths of its beginning: 2 to the power of 1/4, 2/4, 3/4 and 1.
const QUARTERS: [u64; 4] = [1_189, 1_414, 1_682, 2_000];

/// The bucket of so many thousandths of a core; bucket 0 holds 0 and 1.
fn bucket(milli: u64) -> u8 {
    (0..u8::MAX)
        .find(|bucket| milli <= top(*bucket))
        .unwrap_or(u8::MAX)
}

/// The most that is in a bucket.
fn top(bucket: u8) -> u64 {
    let Some(above) = u64::from(bucket).checked_sub(1) else {
        return 1;
    };
    let octave = 1_u64.checked_shl(u32::try_from(above / 4).unwrap_or(u32::MAX));
    let quarter = QUARTERS[usize::try_from(above % 4).unwrap_or(0)];
    let top = octave.and_then(|octave| octave.checked_mul(quarter));
    top.map_or(u64::MAX, |top| top / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn used(samples: u64, milli: u64, memory_bytes: u64) -> Used {
        let mut used = Used::default();
        for _ in 0..samples {
            used.add(Some(milli), memory_bytes);
        }
        used
    }

    #[test]
    fn a_bucket_holds_what_it_says_and_rounds_up_by_less_than_a_fifth() {
        for milli in (0..5_000).chain([64_000, 1 << 40, u64::MAX]) {
            let is = top(bucket(milli));
            assert!(is >= milli, "{milli}: {is}");
            assert!(milli < 10 || is / 12 <= milli / 10, "{milli}: {is}");
        }
    }

    #[test]
    fn of_a_hundred_samples_the_five_highest_are_left_out() {
        let mut cpu = Histogram::default();
        assert_eq!(cpu.p95_milli(), 0);
        for _ in 0..95 {
            cpu.add(100);
        }
        for _ in 0..5 {
            cpu.add(4_000);
        }
        assert_eq!(cpu.p95_milli(), top(bucket(100)));
        cpu.add(4_000);
        assert_eq!(cpu.p95_milli(), top(bucket(4_000)));
        let mut twice = cpu.clone();
        twice.merge(&cpu);
        assert_eq!(twice.p95_milli(), cpu.p95_milli());
    }

    #[test]
    fn the_least_power_with_room_is_proposed() {
        let table = power::ladder();
        for (samples, milli, memory, should) in [
            (39, 1, MIB, None),
            (40, 1, MIB, Some("nano")),
            (40, 1, 410 * MIB, Some("micro")),
            (40, 215, 400 * MIB, Some("small")), // with room, more than a quarter of a core
            (40, 1, 1_000 * MIB, Some("medium")),
            (40, 2_000, MIB, Some("xlarge")),
        ] {
            let advice = advise(&table, None, &used(samples, milli, memory));
            let is = match &advice {
                Advice::Take(power) => Some(power.name.as_str()),
                Advice::Keep(_) | Advice::TooLittle | Advice::TooMuch => None,
            };
            assert_eq!(is, should, "{milli} {memory}: {advice:?}");
        }
        let much = used(40, 9_000, MIB);
        assert_eq!(advise(&table, None, &much), Advice::TooMuch);
        let little = used(40, 1, MIB);
        assert_eq!(
            advise(&table, Some("nano"), &little),
            Advice::Keep(table[0].clone())
        );
    }

    #[test]
    fn one_that_is_held_at_its_limit_is_proposed_a_larger_one() {
        let table = power::ladder();
        for (n, pair) in table.windows(2).enumerate() {
            let Power {
                cpu_milli,
                memory_bytes,
                name,
            } = &pair[0];
            for held in [used(100, *cpu_milli, MIB), used(100, 1, *memory_bytes)] {
                match advise(&table, Some(name), &held) {
                    Advice::Take(power) => {
                        assert!(
                            table.iter().position(|p| *p == power) > Some(n),
                            "{name}: {power:?}"
                        );
                    }
                    other => panic!("{name}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn the_data_and_what_follows_from_it_are_told() {
        let used = used(480, 100, 200 * MIB);
        let advice = advise(&power::ladder(), Some("small"), &used);
        assert_eq!(
            told(&advice, &used),
            [
                "480 samples of its replicas, one each 15 s while awake (2.0 h in all)",
                "a replica used up to 0.107 CPU in 95 of 100 of them, and 200 MB of memory at most",
                "with a fifth of CPU and a quarter of memory to spare, nano is enough (0.25 CPU, 512 MB)",
            ]
        );
        let none = Used::default();
        let texts = told(&advise(&power::ladder(), None, &none), &none);
        assert_eq!(texts.len(), 2);
        assert!(texts[1].contains("too little"), "{texts:?}");
    }
}
