//! What differs from run to run, made the same: times, ids, ports, folders, the width of columns.

/// Masks one command's output; `known` are texts with what stands for them.
pub(crate) fn mask(output: &str, known: &[(String, &str)]) -> String {
    let mut text = output.replace('\r', "\n");
    for (real, shown) in known {
        text = text.replace(real, shown);
    }
    let told = text.lines().filter(|line| !is_count(line));
    let lines = told.map(|line| {
        let words: Vec<String> = split(line).iter().map(|word| mask_word(word)).collect();
        let line = ages(&words.concat());
        squeeze(line.trim_end())
    });
    lines.map(|line| line + "\n").collect()
}

/// `2 of 3 starting`, `preparing 1 replica for 15 s` and their like: how many of these are seen, and what they end with, hangs on
/// how fast the machine is.
fn is_count(line: &str) -> bool {
    let rolls = line.contains("  DEPLOYING  ") || line.contains("  UPDATING  ");
    let text = line.rsplit("  ").next().unwrap_or_default();
    let words: Vec<&str> = text.split(' ').collect();
    rolls
        && matches!(
            words[..],
            ["preparing" | "waits:", ..] | ["starting", "it" | "some", ..] | [_, "of", _, ..]
        )
}

/// Words and what stands between them, in order.
fn split(line: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    let mut in_word = false;
    for c in line.chars() {
        let word = c.is_alphanumeric() || matches!(c, '.' | ':' | '-' | '_' | '/' | 'µ');
        match parts.last_mut() {
            Some(last) if in_word == word => last.push(c),
            Some(_) | None => parts.push(c.to_string()),
        }
        in_word = word;
    }
    parts
}

fn mask_word(word: &str) -> String {
    let stops = ['.', ':'];
    let bare = word.trim_matches(stops);
    let (head, tail) = (
        &word[..word.len() - word.trim_start_matches(stops).len()],
        &word[word.trim_end_matches(stops).len()..],
    );
    let hex = |text: &str| text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    let shown = match bare {
        _ if bare.starts_with("sha256:") && hex(&bare[7..]) => "sha256:<digest>",
        _ if bare.len() == 64 && hex(bare) => "<digest>",
        _ if bare.len() == 12 && hex(bare) => "<id>",
        _ if is_moment(bare) || is_clock(bare) => "<when>",
        _ if is_length(bare) => "<time>",
        _ => return word.to_owned(),
    };
    format!("{head}{shown}{tail}")
}

/// `2026-11-30T04:05:06Z`, or the date alone.
fn is_moment(word: &str) -> bool {
    let bytes = word.as_bytes();
    let digits = |range: std::ops::Range<usize>| {
        (bytes.get(range)).is_some_and(|part| part.iter().all(u8::is_ascii_digit))
    };
    digits(0..4) && digits(5..7) && digits(8..10) && bytes[4] == b'-' && bytes[7] == b'-'
}

/// `04:05:06`, or milliseconds since 1970.
fn is_clock(word: &str) -> bool {
    let digit = |c: char| c.is_ascii_digit();
    let clock = word.len() == 8 && word.split(':').filter(|part| part.len() == 2).count() == 3;
    (clock && word.replace(':', "").chars().all(digit))
        || (word.len() == 13 && word.chars().all(digit))
}

/// `1.5s`, `12ms`, `3.2µs`: what was measured. Whole seconds are what somebody wrote.
fn is_length(word: &str) -> bool {
    let digits = word.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    let unit = &word[digits.len()..];
    number && (matches!(unit, "ms" | "µs") || (unit == "s" && digits.contains('.')))
}

/// `3 s ago`, `just now`, `4.2 ms`: parts of several words.
fn ages(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let mut shown: Vec<String> = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let number = |word: &str| word.parse::<f64>().is_ok();
        match words[at..] {
            [count, unit, ago, ..]
                if number(count) && unit.len() <= 4 && ago.starts_with("ago") =>
            {
                shown.push(format!("<ago>{}", &ago[3..]));
                at += 3;
            }
            [just, now, ..] if just == "just" && now.starts_with("now") => {
                shown.push(format!("<ago>{}", &now[3..]));
                at += 2;
            }
            [count, unit, ..] if number(count) && unit.starts_with("ms") => {
                shown.push(format!("<time>{}", &unit[2..]));
                at += 2;
            }
            // Whole seconds are what somebody wrote.
            [count, unit, ..] if number(count) && count.contains('.') && is_second(unit) => {
                shown.push(format!("<time>{}", &unit[1..]));
                at += 2;
            }
            [word, ..] => {
                shown.push(word.to_owned());
                at += 1;
            }
            [] => break,
        }
    }
    shown.join(" ")
}

/// `s`, and perhaps what closes a sentence or bracket.
fn is_second(unit: &str) -> bool {
    (unit.strip_prefix('s')).is_some_and(|rest| !rest.contains(char::is_alphanumeric))
}

/// Columns are as wide as their longest cell, which may have been masked: two spaces stand for any more.
fn squeeze(line: &str) -> String {
    let indent = line.len() - line.trim_start().len();
    let mut text = line[..indent].to_owned();
    let mut spaces = 0;
    for c in line[indent..].chars() {
        spaces = if c == ' ' { spaces + 1 } else { 0 };
        if spaces <= 2 {
            text.push(c);
        }
    }
    text
}

#[test]
fn what_differs_is_masked_and_nothing_else() {
    let known = [("127.0.0.1:41234".to_owned(), "127.0.0.1:8080")];
    let table = [
        ("replica 0123456789ab: ready", "replica <id>: ready\n"),
        ("http://127.0.0.1:41234/", "http://127.0.0.1:8080/\n"),
        (
            "live after 12.5 ms, 3 s ago.",
            "live after <time>, <ago>.\n",
        ),
        ("in 5 s, revision 12", "in 5 s, revision 12\n"),
        ("took up to 0.1 s), 5 s", "took up to <time>), 5 s\n"),
        (
            "took 1.25s at 2026-11-30T04:05:06Z",
            "took <time> at <when>\n",
        ),
        ("at_ms\":1796012287851,", "at_ms\":<when>,\n"),
        ("2026-11-30 04:05:06  x", "<when> <when>  x\n"),
        ("  a      b", "  a  b\n"),
    ];
    for (real, shown) in table {
        assert_eq!(mask(real, &known), shown);
    }
    for told in [
        "preparing 1 replica for 15 s",
        "1 of 2 ready, 1 of 2 starting: 503",
        "starting it again (start 2 of 3)",
    ] {
        assert_eq!(mask(&format!("shop/web  UPDATING  {told}"), &known), "");
    }
    let attempt = "shop/web  UPDATING  attempt 1 of 2 failed, the next one begins now";
    assert_eq!(mask(attempt, &known), format!("{attempt}\n"));
}
