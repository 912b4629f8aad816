//! Tests of the Dockerfile reader.

use proptest::prelude::*;

use super::words::{expand, split};
use super::*;

fn error_of(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

fn kinds(text: &str) -> Vec<Kind> {
    let file = parse(&format!("FROM scratch\n{text}")).unwrap();
    file.stages[0]
        .instructions
        .iter()
        .map(|instruction| instruction.kind.clone())
        .collect()
}

fn words_of(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn a_whole_dockerfile_is_read() {
    let text = "# syntax=docker/dockerfile:1\n# escape=\\\n\n# a comment\nARG BASE=scratch\nFROM --platform=linux/amd64 $BASE AS Build\nCOPY a \\\n  # inside\n\n  b/ /dst/\nfrom build\nCMD [\"/x\", \"y z\"]\n";
    let file = parse(text).unwrap();
    assert_eq!(file.args.len(), 1);
    assert_eq!(file.stages.len(), 2);
    let stage = &file.stages[0];
    assert_eq!(
        (stage.line, stage.base.as_str(), stage.name.as_deref()),
        (6, "$BASE", Some("build"))
    );
    assert_eq!(stage.platform.as_deref(), Some("linux/amd64"));
    let copy = &stage.instructions[0];
    assert_eq!(copy.line, 7);
    assert_eq!(copy.text, "COPY a   b/ /dst/");
    let Kind::Copy(copy) = &copy.kind else {
        panic!("{copy:?}")
    };
    assert_eq!(copy.sources, ["a", "b/"]);
    assert_eq!(copy.destination, "/dst/");
    assert_eq!(
        file.stages[1].instructions[0].kind,
        Kind::Cmd(Command::Exec(words_of(&["/x", "y z"])))
    );
}

#[test]
fn each_form_of_each_instruction_is_read() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    for (text, kind) in [
        (
            "ENV A=1 B=\"x y\" C=a\\ b",
            Kind::Env(vec![
                pair("A", "1"),
                pair("B", "\"x y\""),
                pair("C", "a\\ b"),
            ]),
        ),
        (
            "ENV A  the rest = of it",
            Kind::Env(vec![pair("A", "the rest = of it")]),
        ),
        ("LABEL a.b=c", Kind::Label(vec![pair("a.b", "c")])),
        (
            "ARG A B=2",
            Kind::Arg(vec![("A".into(), None), ("B".into(), Some("2".into()))]),
        ),
        ("WORKDIR /a b", Kind::Workdir("/a b".into())),
        ("USER 1:2", Kind::User("1:2".into())),
        (
            "EXPOSE 80 53/udp",
            Kind::Expose(words_of(&["80", "53/udp"])),
        ),
        ("VOLUME [\"/a b\"]", Kind::Volume(words_of(&["/a b"]))),
        ("VOLUME /a /b", Kind::Volume(words_of(&["/a", "/b"]))),
        (
            "CMD echo \"hi\" $X",
            Kind::Cmd(Command::Shell("echo \"hi\" $X".into())),
        ),
        (
            "cmd ['not json']",
            Kind::Cmd(Command::Shell("['not json']".into())),
        ),
        ("ENTRYPOINT []", Kind::Entrypoint(Command::Exec(vec![]))),
        (
            "SHELL [\"/bin/bash\", \"-c\"]",
            Kind::Shell(words_of(&["/bin/bash", "-c"])),
        ),
        ("STOPSIGNAL SIGINT", Kind::StopSignal("SIGINT".into())),
        ("HEALTHCHECK NONE", Kind::Healthcheck(None)),
        (
            "HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=1.5s --start-interval=5s --retries=4 CMD /x y",
            Kind::Healthcheck(Some(HealthcheckOptions {
                command: Command::Shell("/x y".into()),
                interval_ns: Some(90_000_000_000),
                timeout_ns: Some(500_000_000),
                start_period_ns: Some(1_500_000_000),
                start_interval_ns: Some(5_000_000_000),
                retries: Some(4),
            })),
        ),
        (
            "COPY --from=0 --chown=1:2 --chmod=755 --link [\"a b\", \"/c d\"]",
            Kind::Copy(Copy {
                is_add: false,
                from: Some("0".into()),
                chown: Some("1:2".into()),
                chmod: Some("755".into()),
                sources: words_of(&["a b"]),
                destination: "/c d".into(),
            }),
        ),
    ] {
        assert_eq!(kinds(text), [kind], "{text}");
    }
}

#[test]
fn errors_name_the_line_and_the_instruction() {
    for (text, error) in [
        ("", "1: there is no FROM"),
        ("# only a comment", "1: there is no FROM"),
        ("ARG A=1\n", "1: there is no FROM"),
        ("COPY a b", "1: COPY stands before the first FROM"),
        (
            "FROM scratch\n\nRUN make",
            "3: RUN is not supported yet by this builder",
        ),
        (
            "FROM scratch\nONBUILD RUN x",
            "2: ONBUILD is not supported yet",
        ),
        ("FROM scratch\nCOPPY a b", "2: COPPY is not an instruction"),
        ("FROM scratch\nCOPY a", "2: COPY takes at least one source"),
        (
            "FROM scratch\nCOPY --form=x a b",
            "2: COPY does not know the flag --form",
        ),
        (
            "FROM scratch\nCOPY --chown a b",
            "2: COPY has --chown without a value",
        ),
        (
            "FROM scratch\nADD --from=x a b",
            "2: ADD does not know the flag --from",
        ),
        (
            "FROM scratch\nCOPY <<EOF /x\nhi\nEOF",
            "2: COPY of a heredoc is not supported",
        ),
        ("FROM scratch\nENV A=1 B", "2: ENV has B without a `=`"),
        ("FROM scratch\nENV A", "2: ENV A has no value"),
        ("FROM scratch\nWORKDIR", "2: WORKDIR says nothing"),
        ("FROM scratch\nSHELL sh", "2: SHELL takes the JSON form"),
        ("FROM scratch\nARG 1A", "2: ARG cannot be named \"1A\""),
        (
            "FROM scratch\nSTOPSIGNAL a b",
            "2: STOPSIGNAL takes one signal",
        ),
        (
            "FROM scratch\nHEALTHCHECK x",
            "2: HEALTHCHECK takes `NONE` or `CMD`",
        ),
        (
            "FROM scratch\nHEALTHCHECK --interval=x CMD y",
            "2: HEALTHCHECK has --interval=x, which is no duration",
        ),
        (
            "FROM scratch\nHEALTHCHECK --timeout=5ns CMD y",
            "2: HEALTHCHECK has --timeout=5ns, which is less than",
        ),
        ("FROM a b c", "1: FROM takes an image"),
        ("FROM a AS -x", "1: FROM cannot name a stage"),
        ("# escape=x\nFROM a", "1: the escape character must be"),
        (
            "# escape=`\n# escape=`\nFROM a",
            "2: the parser directive escape stands there twice",
        ),
    ] {
        let found = error_of(text);
        assert!(found.starts_with(error), "{text:?}: {found}");
    }
}

#[test]
fn the_escape_directive_changes_the_escape() {
    let file = parse("# escape=`\nFROM scratch\nCOPY a `\n c:\\x\\\nCMD x").unwrap();
    assert_eq!(file.escape, '`');
    assert_eq!(file.stages[0].instructions.len(), 2);
    assert_eq!(file.stages[0].instructions[0].text, "COPY a  c:\\x\\");
}

#[test]
fn a_directive_below_anything_else_is_a_comment() {
    assert_eq!(parse("# hello\n# escape=`\nFROM a").unwrap().escape, '\\');
    assert_eq!(parse("FROM a\n# escape=x").unwrap().escape, '\\');
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_are_no_trouble() {
    let file = parse("\u{feff}FROM scratch\r\nCOPY a \\\r\n b\r\n").unwrap();
    assert_eq!(file.stages[0].instructions[0].text, "COPY a  b");
}

#[test]
fn maintainer_is_noted() {
    let file = parse("FROM scratch\nMAINTAINER me").unwrap();
    assert_eq!(file.notes[0].0, 2);
    assert!(file.stages[0].instructions.is_empty());
}

#[test]
fn words_are_expanded_as_docker_does() {
    let lookup = |name: &str| match name {
        "x" => Some("X".to_owned()),
        "empty" => Some(String::new()),
        "long_1" => Some("L".to_owned()),
        _ => None,
    };
    for (word, expected) in [
        ("plain", "plain"),
        ("$x", "X"),
        ("${x}y", "Xy"),
        ("$x-$long_1.", "X-L."),
        ("$unset", ""),
        ("a$", "a$"),
        ("$1", "$1"),
        ("'$x'", "$x"),
        ("\"$x y\"", "X y"),
        ("\"\\$x \\\" \\n\"", "$x \" \\n"),
        ("\\$x", "$x"),
        ("a\\ b", "a b"),
        ("end\\", "end\\"),
        ("${unset:-d}", "d"),
        ("${empty:-d}", "d"),
        ("${empty-d}", ""),
        ("${unset-d}", "d"),
        ("${x:-d}", "X"),
        ("${x:+y}", "y"),
        ("${unset:+y}", ""),
        ("${empty:+y}", ""),
        ("${empty+y}", "y"),
        ("${unset:-${x}-${unset:-'}'}}", "X-}"),
        ("${x:?no}", "X"),
    ] {
        assert_eq!(
            expand(word, '\\', &lookup).as_deref(),
            Ok(expected),
            "{word}"
        );
    }
    for (word, error) in [
        ("${x", "not closed"),
        ("${}", "not followed by a name"),
        ("${x#a}", "not supported"),
        ("${x:}", "no modifier"),
        ("${unset:?please set it}", "please set it"),
        ("'a", "not closed"),
        ("\"a", "not closed"),
        ("${x:-a", "missing"),
    ] {
        let found = expand(word, '\\', &lookup).unwrap_err();
        assert!(found.contains(error), "{word}: {found}");
    }
    let deep = format!("{}{}", "${a:-".repeat(100_000), "}".repeat(100_000));
    assert!(expand(&deep, '\\', &lookup).unwrap_err().contains("nested"));
}

#[test]
fn words_are_split_outside_of_quotes() {
    assert_eq!(
        split("a  \"b c\" 'd e'f g\\ h", '\\'),
        ["a", "\"b c\"", "'d e'f", "g\\ h"]
    );
    assert_eq!(split("  ", '\\'), Vec::<String>::new());
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "(?s).{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_text_of_the_language_makes_the_parser_panic(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "FROM", "COPY", "ENV", "HEALTHCHECK", "CMD", "ARG", "EXPOSE", "SHELL", "LABEL", " ", "\n", "\\\n", "\\", "#",
                "# escape=`\n", "\"", "'", "[", "]", "--", "=", "--from=", "${", "$x", ":-", "}", "a", "é", "scratch",
                "AS", "<<EOF", "--interval=9999999h", "1.5s", ",", "\t", "`",
            ]),
            0..40,
        )
    ) {
        let text = parts.concat();
        if let Ok(file) = parse(&text) {
            prop_assert!(!file.stages.is_empty());
        }
        let _ = expand(&text, '\\', &|name| Some(name.to_owned()));
    }
}
