//! What somebody may have meant by a name that nothing has.

/// So many names are told of where none is alike.
const TOLD: usize = 5;

/// The name that is most like `name`, as it is called in full (`app/service`) or by its last part.
pub(crate) fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a String> {
    // One letter in three left out, added, changed or swapped with its neighbour.
    let slips = (name.chars().count() / 3).max(1);
    let distance = |full: &String| {
        let last = full.rsplit('/').next().unwrap_or(full);
        strsim::damerau_levenshtein(name, full).min(strsim::damerau_levenshtein(name, last))
    };
    let near = known.iter().map(|full| (distance(full), full));
    let (_, full) = near.filter(|(distance, _)| *distance <= slips).min()?;
    Some(full)
}

/// What to say after `no service is called wbe: `; `known` are all there are.
pub(crate) fn instead(name: &str, known: &[String]) -> String {
    if let Some(near) = nearest(name, known) {
        return format!("did you mean {near}?");
    }
    match known {
        [] => "there are none yet".to_owned(),
        few if few.len() <= TOLD => format!("there are {}", few.join(", ")),
        many => format!(
            "there are {} and {} more (`layby ls`)",
            many[..TOLD].join(", "),
            many.len() - TOLD
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_fingers_is_understood_and_others_hear_what_there_is() {
        let known: Vec<String> = ["shop/web", "shop/worker", "blog/db"]
            .map(str::to_owned)
            .into();
        let table = [
            ("wbe", "did you mean shop/web?"),
            ("shop/wokrer", "did you mean shop/worker?"),
            ("pg", "there are shop/web, shop/worker, blog/db"),
            ("xyz", "there are shop/web, shop/worker, blog/db"),
        ];
        for (name, said) in table {
            assert_eq!(instead(name, &known), said);
        }
        assert_eq!(instead("web", &[]), "there are none yet");
        let many: Vec<String> = (0..7).map(|n| format!("shop/s{n}{n}{n}")).collect();
        assert!(instead("qqq", &many).ends_with("and 2 more (`layby ls`)"));
    }
}
