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
                parents: false,
                excludes: vec![],
                checksum: None,
                unpack: None,
                sources: words_of(&["a b"]),
                heredocs: vec![],
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
        ("FROM scratch\n\nRUN", "3: RUN says nothing"),
        ("FROM scratch\nRUN []", "2: RUN has an empty command"),
        (
            "FROM scratch\nRUN --security=insecure x",
            "2: RUN --security=insecure is not possible",
        ),
        (
            "FROM scratch\nRUN --network=mine x",
            "2: RUN --network is default, none or host",
        ),
        (
            "FROM scratch\nRUN --mount=type=disk x",
            "2: RUN has --mount=type=disk",
        ),
        (
            "FROM scratch\nRUN <<EOF\necho",
            "2: the heredoc <<EOF has no end",
        ),
        (
            "FROM scratch\nCOPY --from=$X a b",
            "2: COPY has --from=$X: no variables are put in there",
        ),
        (
            "FROM scratch\nONBUILD ONBUILD RUN x",
            "2: ONBUILD: ONBUILD cannot be one",
        ),
        (
            "FROM scratch\nONBUILD FROM x",
            "2: ONBUILD: FROM cannot be one",
        ),
        (
            "FROM scratch\nONBUILD COPPY a b",
            "2: ONBUILD: COPPY is not an instruction",
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
            "FROM scratch\nCOPY --from=x <<EOF /x\nhi\nEOF",
            "2: COPY cannot take a heredoc --from",
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
fn heredocs_belong_to_the_instruction_that_opens_them() {
    let text = "FROM scratch\nRUN <<-A cat >/x && <<\"B\" cat >/y\n\t# no comment\n\n\tA\nlast $X \\\nB\n\
        COPY <<one two <<'three' /dst/\n1\none\n3\nthree\n\
        ONBUILD RUN <<E\nlater\nE\nRUN echo $((1<<2)) 1 << 2\nCMD cat <<EOF\n";
    let kinds: Vec<Kind> = parse(text).unwrap().stages[0]
        .instructions
        .iter()
        .map(|instruction| instruction.kind.clone())
        .collect();
    let doc = |name: &str, expands, is_indented, text: &str| Heredoc {
        name: name.into(),
        expands,
        is_indented,
        text: text.into(),
    };
    let Kind::Run(run) = &kinds[0] else {
        panic!("{kinds:?}")
    };
    assert_eq!(
        run.heredocs,
        [
            doc("A", true, true, "# no comment\n\n"),
            doc("B", false, false, "last $X \\\n")
        ]
    );
    let Kind::Copy(copy) = &kinds[1] else {
        panic!("{kinds:?}")
    };
    assert_eq!(copy.sources, ["two"]);
    assert_eq!(
        copy.heredocs,
        [
            doc("one", true, false, "1\n"),
            doc("three", false, false, "3\n")
        ]
    );
    assert_eq!(kinds[2], Kind::OnBuild("RUN <<E\nlater\nE".into()));
    let trigger = parse_trigger("RUN <<E\nlater\nE", 7, '\\').unwrap();
    assert!(matches!(trigger.kind, Kind::Run(run) if run.heredocs[0].text == "later\n"));
    let Kind::Run(run) = &kinds[3] else {
        panic!("{kinds:?}")
    };
    assert!(run.heredocs.is_empty());
    assert_eq!(kinds[4], Kind::Cmd(Command::Shell("cat <<EOF".into())));
}

#[test]
fn flags_of_run_and_copy_are_read() {
    let Kind::Run(run) = &kinds(
        "RUN --mount=type=cache,target=/a --mount=target=/b --network=none [\"x\", \"y z\"]",
    )[0] else {
        panic!()
    };
    assert_eq!(run.mounts, ["type=cache,target=/a", "target=/b"]);
    assert_eq!(run.network.as_deref(), Some("none"));
    assert_eq!(run.command, Command::Exec(words_of(&["x", "y z"])));
    let Kind::Copy(copy) = &kinds("COPY --parents --exclude=*.md --exclude=b --link=false a /b")[0]
    else {
        panic!()
    };
    assert!(copy.parents);
    assert_eq!(copy.excludes, ["*.md", "b"]);
    let Kind::Copy(add) = &kinds("ADD --checksum=sha256:x --unpack=false https://a/b /c")[0] else {
        panic!()
    };
    assert_eq!(add.checksum.as_deref(), Some("sha256:x"));
    assert_eq!(add.unpack, Some(false));
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
    let kind = &file.stages[0].instructions[0].kind;
    assert_eq!(*kind, Kind::Maintainer("me".into()));
}

#[test]
fn words_are_expanded_as_docker_does() {
    let lookup = |name: &str| match name {
        "x" => Some("X".to_owned()),
        "empty" => Some(String::new()),
        "long_1" => Some("L".to_owned()),
        "path" => Some("/usr/lib/a.tar.gz".to_owned()),
        "star" => Some("*b".to_owned()),
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
        ("${path#*/}", "usr/lib/a.tar.gz"),
        ("${path##*/}", "a.tar.gz"),
        ("${path%.*}", "/usr/lib/a.tar"),
        ("${path%%.*}", "/usr/lib/a"),
        ("${path#nope}", "/usr/lib/a.tar.gz"),
        ("${path/lib/share}", "/usr/share/a.tar.gz"),
        ("${path//\\//:}", ":usr:lib:a.tar.gz"),
        ("${path//a?/}", "/usr/lib/t.gz"),
        ("${path/$x}", "/usr/lib/a.tar.gz"),
        ("${unset#a}", ""),
        ("${star#\\*}", "b"),
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
        ("${x~a}", "not supported"),
        ("${x#a", "missing"),
        ("${x/a", "missing"),
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
                "AS", "<<EOF", "RUN", "ONBUILD", "ADD", "EOF", "--mount=", "type=cache", "#", "%", "/", "*", "--interval=9999999h", "1.5s", ",", "\t", "`",
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
