//! What is told of scaling: where it came to, and not each step on the way.

use std::time::Duration;

use layby_model::scale::Decision;
use tokio::time::Instant;

/// So far apart are two events of a service.
const TELL: Duration = Duration::from_secs(10);

/// What was told last.
#[derive(Debug)]
pub(super) struct Told {
    replicas: u32,
    /// `None`: nothing yet.
    at: Option<Instant>,
}

impl Told {
    /// It is known that there are so many.
    pub(super) fn new(replicas: u32) -> Self {
        Self { replicas, at: None }
    }

    /// What is to be told now that there are so many, in words that follow the service's name. `short`: what stands in the way of
    /// as many as were decided.
    pub(super) fn tell(
        &mut self,
        replicas: u32,
        decision: &Decision,
        short: Option<&str>,
        now: Instant,
    ) -> Option<String> {
        let is_early = self.at.is_some_and(|at| now.duration_since(at) < TELL);
        if replicas == self.replicas || is_early {
            return None;
        }
        let before = std::mem::replace(&mut self.replicas, replicas);
        self.at = Some(now);
        let noun = match replicas {
            1 => "replica",
            _ => "replicas",
        };
        let why = match (decision.replicas == replicas, short) {
            (true, _) => format!(": {}", decision.why),
            (false, Some(short)) => format!(", not {}: {short}", decision.replicas),
            (false, None) => String::new(),
        };
        Some(format!("scaled from {before} to {replicas} {noun}{why}"))
    }
}

#[cfg(test)]
mod tests {
    use layby_model::scale::Seen;

    use super::*;

    #[test]
    fn the_first_step_is_told_at_once_and_the_others_where_they_came_to() {
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let decision = |replicas| Decision {
            replicas,
            why: "4 requests".into(),
            seen: Seen::default(),
        };
        let mut told = Told::new(1);
        assert_eq!(told.tell(1, &decision(1), None, begun), None);
        let first = told.tell(2, &decision(2), None, after(1));
        assert_eq!(
            first.as_deref(),
            Some("scaled from 1 to 2 replicas: 4 requests")
        );
        assert_eq!(told.tell(3, &decision(3), None, after(2)), None);
        assert_eq!(told.tell(4, &decision(4), None, after(10)), None);
        let last = told.tell(4, &decision(4), None, after(11));
        assert_eq!(
            last.as_deref(),
            Some("scaled from 2 to 4 replicas: 4 requests")
        );
        assert_eq!(told.tell(2, &decision(2), None, after(12)), None);
        let back = told.tell(1, &decision(3), None, after(30));
        assert_eq!(back.as_deref(), Some("scaled from 4 to 1 replica"));
        let short = told.tell(5, &decision(9), Some("there is no room"), after(60));
        let text = "scaled from 1 to 5 replicas, not 9: there is no room";
        assert_eq!(short.as_deref(), Some(text));
    }
}
