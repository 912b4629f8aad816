//! Whatever the files hold, `read` answers: it neither panics nor hangs, and every error says something.

use std::path::Path;
use std::sync::LazyLock;
use std::{env, fs};

use layby_manifest::{Files, ReadOptions, read};
use proptest::prelude::*;

/// All YAML of the cases.
static FIXTURES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .flat_map(|case| fs::read_dir(case.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|ending| ending == "yaml" || ending == "yml")
        })
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
});

fn check(name: &str, bytes: Vec<u8>, dotenv: Vec<u8>) {
    let named = ["web.env", "bad.env", "raw.env"].map(|name| (name.to_owned(), dotenv.clone()));
    let files = Files([(name.to_owned(), bytes), (".env".to_owned(), dotenv)].into());
    let options = ReadOptions {
        files: vec![name.to_owned()],
        folder: "demo".to_owned(),
        folder_path: Some("/srv/demo".to_owned()),
        named_files: Some(named.into()),
        ..ReadOptions::default()
    };
    match read(&files, &options) {
        Ok(manifest) => assert!(!manifest.app.services.is_empty()),
        Err(faults) => {
            assert!(!faults.errors.is_empty(), "refused without a reason");
            for error in faults.errors.into_iter().chain(faults.warnings) {
                assert!(!error.message.is_empty());
                assert!(error.to_string().len() < 2_000, "{error}");
            }
        }
    }
}

/// What a mutation puts in: the words that the readers look for, and YAML's own signs.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..8),
        prop::sample::select(vec![
            "\n",
            "\t",
            "  ",
            ": ",
            "- ",
            "{",
            "}",
            "[",
            "]",
            "&a ",
            "*a",
            "<<: *a\n",
            "~",
            "null",
            "!!str ",
            "!x ",
            "'",
            "\"",
            "|\n",
            ">\n",
            "---\n",
            "...\n",
            "#",
            "${A}",
            "${A:-${B}}",
            "$",
            "services:\n",
            "x-layby:\n",
            "ports:\n",
            "volumes:\n",
            "env_file: web.env\n",
            "/",
            "..",
            "=",
            ":ro",
            "0",
            "-1",
            "99999999999999999999",
            "1e9",
            "never",
            "kind: List\nitems:\n",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ]
}

proptest! {
    // PROPTEST_CASES asks for more.
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(512),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn arbitrary_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..400), dotenv in prop::collection::vec(any::<u8>(), 0..100)) {
        check("compose.yaml", bytes, dotenv);
    }

    #[test]
    fn mutated_fixtures_are_answered(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..12_usize, piece()), 1..6),
    ) {
        let mut bytes = which.get(&FIXTURES).clone();
        for (at, removed, piece) in edits {
            let at = at.index(bytes.len() + 1);
            let end = (at + removed).min(bytes.len());
            bytes.splice(at..end, piece);
        }
        check("compose.yaml", bytes, Vec::new());
    }
}

#[test]
fn a_file_over_one_mebibyte_is_refused_with_its_size() {
    let files = Files([("compose.yaml".to_owned(), vec![b' '; 100 << 20])].into());
    let errors = read(&files, &ReadOptions::default()).unwrap_err().errors;
    assert_eq!(
        errors[0].to_string(),
        "compose.yaml: is 104857600 bytes long; a manifest may have 1048576 (1 MiB) at most"
    );
}

#[test]
fn aliases_that_multiply_are_refused() {
    let mut bomb = "x-a: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let alias = format!("*a{}", level - 1);
        bomb += &format!("x-{level}: &a{level} [{}]\n", vec![alias; 10].join(", "));
    }
    let files = Files([("compose.yaml".to_owned(), bomb.into_bytes())].into());
    let errors = read(&files, &ReadOptions::default()).unwrap_err().errors;
    assert!(
        errors[0].message.contains("more than 100000 values"),
        "{}",
        errors[0]
    );
}

#[test]
fn a_long_text_that_is_named_often_is_refused() {
    let text = "x".repeat(500_000);
    let aliases = vec!["*a"; 100_000].join(", ");
    let bomb = format!("x-a: &a {text}\nx-b: [{aliases}]\n");
    let files = Files([("compose.yaml".to_owned(), bomb.into_bytes())].into());
    let errors = read(&files, &ReadOptions::default()).unwrap_err().errors;
    assert!(
        errors[0].message.contains("counted by their length"),
        "{}",
        errors[0]
    );
}

#[test]
fn aliases_that_deepen_are_refused() {
    let mut bomb = "x-0: &a0 [x]\n".to_owned();
    for level in 1..2_000 {
        bomb += &format!("x-{level}: &a{level} [*a{}]\n", level - 1);
    }
    let files = Files([("compose.yaml".to_owned(), bomb.into_bytes())].into());
    let errors = read(&files, &ReadOptions::default()).unwrap_err().errors;
    assert!(
        errors[0].message.contains("deeper than 64 levels"),
        "{}",
        errors[0]
    );
}

#[test]
fn variables_that_grow_without_end_are_refused() {
    let mut dotenv = "A0=0123456789\n".to_owned();
    for level in 1..40 {
        let before = format!("${{A{}}}", level - 1);
        dotenv += &format!("A{level}={}\n", before.repeat(10));
    }
    let files = Files(
        [
            (
                "compose.yaml".to_owned(),
                b"services: {web: {image: \"${A39}\"}}\n".to_vec(),
            ),
            (".env".to_owned(), dotenv.into_bytes()),
        ]
        .into(),
    );
    let options = ReadOptions {
        folder: "demo".to_owned(),
        ..ReadOptions::default()
    };
    let errors = read(&files, &options).unwrap_err().errors;
    assert!(errors[0].message.contains("1 MiB"), "{}", errors[0]);
}

#[test]
fn of_very_many_warnings_the_first_are_shown() {
    let keys: String = (0..5_000).map(|key| format!("    k{key}: 1\n")).collect();
    let text = format!("services:\n  web:\n    image: x\n{keys}");
    let files = Files([("compose.yaml".to_owned(), text.into_bytes())].into());
    let options = ReadOptions {
        folder: "demo".to_owned(),
        ..ReadOptions::default()
    };
    let manifest = read(&files, &options).unwrap();
    assert_eq!(manifest.warnings.len(), 201);
    assert_eq!(manifest.warnings[200].to_string(), "and 4800 more warnings");
}

#[test]
fn env_files_that_every_service_reads_come_to_so_much_and_no_more() {
    let services: String = (0..200)
        .map(|n| format!("  s{n}: {{image: x, env_file: big.env}}\n"))
        .collect();
    let text = format!("services:\n{services}");
    let files = Files([("compose.yaml".to_owned(), text.into_bytes())].into());
    let big = format!("A={}\n", "x".repeat(1_000_000));
    let options = ReadOptions {
        folder: "demo".to_owned(),
        named_files: Some([("big.env".to_owned(), big.into_bytes())].into()),
        ..ReadOptions::default()
    };
    let errors = read(&files, &options).unwrap_err().errors;
    assert!(errors[0].message.contains("64 MiB"), "{}", errors[0]);
}

#[test]
fn lists_of_words_have_a_bound() {
    let names = vec!["www"; 2_000].join(", ");
    let text =
        format!("services:\n  web: {{image: x, networks: {{default: {{aliases: [{names}]}}}}}}\n");
    let files = Files([("compose.yaml".to_owned(), text.into_bytes())].into());
    let options = ReadOptions {
        folder: "demo".to_owned(),
        ..ReadOptions::default()
    };
    let errors = read(&files, &options).unwrap_err().errors;
    assert!(
        errors[0].message.contains("more than 1000 items"),
        "{}",
        errors[0]
    );
}
