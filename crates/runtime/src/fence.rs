//! The fence of devices on v2 cgroups: a program that the kernel asks before a device is opened or made (cgroup-v2.rst,
//! "Device controller"). On v1 there is a controller with files for it.

use std::io;
use std::os::fd::BorrowedFd;

use crate::sys;

/// One rule of v1's words: `c 1:3 rwm`, with `*` for any number.
#[derive(Debug, PartialEq, Eq)]
struct Rule {
    kind: i32,
    major: Option<u32>,
    minor: Option<u32>,
    access: i32,
}

/// BPF_DEVCG_DEV_BLOCK and BPF_DEVCG_DEV_CHAR.
const KINDS: [(&str, i32); 2] = [("b", 1), ("c", 2)];

/// BPF_DEVCG_ACC_MKNOD, BPF_DEVCG_ACC_READ and BPF_DEVCG_ACC_WRITE.
const ACCESSES: [(char, i32); 3] = [('m', 1), ('r', 2), ('w', 4)];

/// Lets the processes below `cgroup` do what one of the rules allows, and nothing else with devices.
pub(crate) fn attach<'a>(
    cgroup: BorrowedFd<'_>,
    rules: impl Iterator<Item = &'a str>,
) -> io::Result<()> {
    let parsed: Option<Vec<Rule>> = rules.map(parse).collect();
    let rules = parsed.ok_or_else(|| io::Error::other("a rule for devices makes no sense"))?;
    sys::attach_device_program(cgroup, &program(&rules))
}

fn parse(text: &str) -> Option<Rule> {
    let mut fields = text.split(' ');
    let (kind, numbers, access) = (fields.next()?, fields.next()?, fields.next()?);
    let (_, kind) = KINDS.into_iter().find(|(name, _)| *name == kind)?;
    let (major, minor) = numbers.split_once(':')?;
    let number = |text: &str| match text {
        "*" => Some(None),
        other => other.parse().ok().map(Some),
    };
    let mut bits = 0;
    for letter in access.chars() {
        bits |= ACCESSES.into_iter().find(|(known, _)| *known == letter)?.1;
    }
    Some(Rule {
        kind,
        major: number(major)?,
        minor: number(minor)?,
        access: bits,
    })
}

/// One instruction (bpf-docs, instruction-set.rst).
fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[0] = code;
    bytes[1] = if cfg!(target_endian = "little") {
        from << 4 | to
    } else {
        to << 4 | from
    };
    bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
    bytes[4..].copy_from_slice(&value.to_ne_bytes());
    bytes
}

/// The program. Its context is a `struct bpf_cgroup_dev_ctx`: what is asked for in the upper half of the first word and
/// the kind in the lower one, then the numbers.
fn program(rules: &[Rule]) -> Vec<u8> {
    const LOAD: u8 = 0x61;
    const COPY: u8 = 0xbc;
    const SET: u8 = 0xb7;
    const AND: u8 = 0x54;
    const SHIFT_RIGHT: u8 = 0x74;
    const JUMP_IF_NOT: u8 = 0x55;
    const EXIT: u8 = 0x95;
    let mut code = vec![
        instruction(LOAD, 2, 1, 0, 0),
        instruction(COPY, 3, 2, 0, 0),
        instruction(AND, 2, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, 3, 0, 0, 16),
        instruction(LOAD, 4, 1, 4, 0),
        instruction(LOAD, 5, 1, 8, 0),
    ];
    for rule in rules {
        // Each of these, if it does not hold, jumps to the next rule.
        let mut tests: Vec<[u8; 8]> = Vec::new();
        let mut body: Vec<(bool, u8, i32)> = vec![(true, 2, rule.kind)];
        body.push((false, 0, !rule.access));
        body.push((true, 0, 0));
        body.extend(rule.major.map(|number| (true, 4, number as i32)));
        body.extend(rule.minor.map(|number| (true, 5, number as i32)));
        // The copy before the mask, and the two that allow, count too.
        let all = body.len() + 1 + 2;
        for (jumps, register, value) in body {
            if !jumps {
                tests.push(instruction(COPY, 0, 3, 0, 0));
                tests.push(instruction(AND, register, 0, 0, value));
                continue;
            }
            let left = all - tests.len() - 1;
            let offset = i16::try_from(left).unwrap_or(i16::MAX);
            tests.push(instruction(JUMP_IF_NOT, register, 0, offset, value));
        }
        tests.push(instruction(SET, 0, 0, 0, 1));
        tests.push(instruction(EXIT, 0, 0, 0, 0));
        code.extend(tests);
    }
    code.push(instruction(SET, 0, 0, 0, 0));
    code.push(instruction(EXIT, 0, 0, 0, 0));
    code.concat()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;
    use std::process::Command;

    use super::*;
    use crate::cgroup::Group;
    use crate::hierarchy::Hierarchies;

    #[test]
    fn rules_are_read_as_v1_has_them() {
        let rule = |kind, major, minor, access| Rule {
            kind,
            major,
            minor,
            access,
        };
        assert_eq!(parse("c 1:3 rw"), Some(rule(2, Some(1), Some(3), 6)));
        assert_eq!(parse("b *:* m"), Some(rule(1, None, None, 1)));
        for bad in ["c 1:3", "x 1:3 r", "c 1 r", "c 1:3 q", ""] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_devices_that_a_rule_names_can_be_opened_on_v2() {
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let line = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let place = line.and_then(|line| line.split(' ').nth(4));
        let Some(place) = place.filter(|_| nix::unistd::geteuid().is_root()) else {
            println!("SKIPPED: needs root and a cgroup2 mount");
            return;
        };
        let hierarchies: &Hierarchies = Box::leak(Box::new(Hierarchies::V2(place.into())));
        let name = format!("layby-test-fence-{}", std::process::id());
        let group = Group::on(hierarchies, &name).expect("a group");
        group.create().expect("create");
        let dir = std::path::Path::new(place).join(&name);
        let attached = fs::File::open(&dir)
            .and_then(|dir| attach(dir.as_fd(), ["c 1:3 rwm", "c 1:5 r"].into_iter()));
        let script = format!(
            "echo $$ > {}/cgroup.procs; exec 2>/dev/null; \
             (: < /dev/zero) && echo read; (: > /dev/zero) && echo wrote; (: < /dev/full) && echo full; echo end",
            dir.display()
        );
        let output = Command::new("sh")
            .args(["-c", &script])
            .output()
            .expect("sh runs");
        group.remove().expect("remove");
        attached.expect("attached");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "read\nend\n");
    }
}
