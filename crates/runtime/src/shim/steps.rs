//! In which order the containers of a sandbox are started, and told to end.

use std::collections::VecDeque;

use crate::spec::SandboxSpec;

/// One step of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The container of this number is started.
    Start(usize),
    /// The hook of this number follows the start of a container.
    Hook(usize, usize),
    /// The container of this number among those that run before is run to its end.
    Init(usize),
}

/// All steps of a start, where so many of those that run before have ended well already.
pub(super) fn steps(spec: &SandboxSpec, done: usize) -> VecDeque<Step> {
    let mut steps = VecDeque::new();
    let start = |steps: &mut VecDeque<Step>, container: usize| {
        steps.push_back(Step::Start(container));
        let hooks = 0..spec.containers[container].post_start.len();
        steps.extend(hooks.map(|hook| Step::Hook(container, hook)));
    };
    let mut order = order(spec).into_iter().peekable();
    for init in 0..spec.init.len() {
        while let Some(container) = order.next_if(|c| place(spec, *c) <= init) {
            start(&mut steps, container);
        }
        if init >= done {
            steps.push_back(Step::Init(init));
        }
    }
    for container in order {
        start(&mut steps, container);
    }
    steps
}

/// The containers in the order in which they are started.
pub(super) fn order(spec: &SandboxSpec) -> Vec<usize> {
    let mut order: Vec<usize> = (0..spec.containers.len()).collect();
    order.sort_by_key(|container| place(spec, *container));
    order
}

/// Before which of those that run before a container is started; those that are no sidecars come last of all.
fn place(spec: &SandboxSpec, container: usize) -> usize {
    let sidecar = spec.containers[container].sidecar;
    let place = sidecar.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    place.map_or(spec.init.len() + 1, |n| n.min(spec.init.len()))
}

/// Which containers are told to end next, of those that run: all that are no sidecars, or the sidecar that was started last.
pub(super) fn last_started(spec: &SandboxSpec, runs: impl Fn(usize) -> bool) -> Vec<usize> {
    let running: Vec<usize> = order(spec).into_iter().filter(|c| runs(*c)).collect();
    let is_sidecar = |container: &usize| spec.containers[*container].sidecar.is_some();
    let mains: Vec<usize> = running.iter().copied().filter(|c| !is_sidecar(c)).collect();
    match mains.is_empty() {
        true => running.last().copied().into_iter().collect(),
        false => mains,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::HookConfig;
    use crate::spec::ContainerConfig;

    /// Containers by their `sidecar`, and so many that run before.
    fn spec(sidecars: &[Option<u32>], init: usize) -> SandboxSpec {
        let container = |sidecar: &Option<u32>| ContainerConfig {
            sidecar: *sidecar,
            ..ContainerConfig::default()
        };
        SandboxSpec {
            containers: sidecars.iter().map(container).collect(),
            init: vec![ContainerConfig::default(); init],
            ..SandboxSpec::default()
        }
    }

    #[test]
    fn plain_containers_are_started_in_their_order() {
        let steps = steps(&spec(&[None, None], 0), 0);
        assert_eq!(steps, [Step::Start(0), Step::Start(1)]);
    }

    #[test]
    fn those_that_run_before_run_once_and_sidecars_are_there_for_them() {
        let spec = spec(&[None, Some(1), Some(2), Some(0)], 2);
        let all = [
            Step::Start(3),
            Step::Init(0),
            Step::Start(1),
            Step::Init(1),
            Step::Start(2),
            Step::Start(0),
        ];
        assert_eq!(steps(&spec, 0), all);
        let again = [
            Step::Start(3),
            Step::Start(1),
            Step::Start(2),
            Step::Start(0),
        ];
        assert_eq!(steps(&spec, 2), again);
    }

    #[test]
    fn hooks_follow_their_container() {
        let mut spec = spec(&[None, None], 0);
        spec.containers[0].post_start = vec![HookConfig::Sleep { ms: 1 }; 2];
        let expected = [
            Step::Start(0),
            Step::Hook(0, 0),
            Step::Hook(0, 1),
            Step::Start(1),
        ];
        assert_eq!(steps(&spec, 0), expected);
    }

    #[test]
    fn sidecars_end_after_the_others_the_last_started_first() {
        let spec = spec(&[None, Some(0), None, Some(1)], 1);
        assert_eq!(last_started(&spec, |_| true), [0, 2]);
        assert_eq!(last_started(&spec, |c| c != 0), [2]);
        assert_eq!(last_started(&spec, |c| c % 2 == 1), [3]);
        assert_eq!(last_started(&spec, |c| c == 1), [1]);
        assert_eq!(last_started(&spec, |_| false), [] as [usize; 0]);
    }
}
