"""Asks other programs what they make of the corpus, and writes their answers down beside it.

By hand, when the corpus changes (the tests read only what is written):

    python3 -m venv venv
    venv/bin/pip install --no-deps docker-compose==1.29.2 podman-compose==1.6.0
    venv/bin/pip install PyYAML dockerpty docopt 'jsonschema<4' 'python-dotenv<1' requests distro texttable \
        'websocket-client<1' 'docker<6' setuptools
    venv/bin/python oracles.py [compose-spec.json]

(docker-compose pins a PyYAML that does not build any more; it works with the newest.) The schema is schema/compose-spec.json
of the repository compose-spec/compose-spec; compose-lens is built with cargo, which fetches it. With the schema, the keys of the specification and what it says of every file and of
every normal form (normal.txt, which `UPDATE_EXPECTED=1 cargo test -p layby-manifest --test corpus` writes) are written too.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import jsonschema
import yaml

ROOT = pathlib.Path(__file__).resolve().parent
SEEN = "/srv/demo"
PROGRAMS = {"docker-compose": "compose", "podman-compose": "podman_compose"}
VARIABLES = {"SET": "set", "EMPTY": "", "YES": "true", "TWO": "2", "HALF": "0.5", "HOME": "/home/me"}


def cases():
    """Name, folder and options of each case, sorted."""
    for file in sorted((ROOT / "files").glob("*.yaml")):
        yield file.stem, file.parent, ["-f", file.name]
    for folder in sorted((ROOT / "folders").iterdir()):
        args = folder / "args"
        words = args.read_text().split() if args.exists() else []
        yield folder.name, folder, words


def of_case(folder, words):
    """The files that a case begins with."""
    files = [folder / words[at + 1] for at, word in enumerate(words) if word == "-f"]
    return files or sorted(folder.glob("*compose*.y*ml"))


def ask(module, folder, words):
    """What a program prints for a case, or why it refuses."""
    command = [sys.executable, "-m", module, *words, "-p", "demo", "config"]
    environment = {"PATH": os.environ["PATH"], **VARIABLES}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    real = str(folder.resolve())  # one of them is a link to an example
    out = done.stdout.replace(str(folder), SEEN).replace(real, SEEN)
    if done.returncode != 0 or not out.strip():
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        reason = " ".join(line.strip() for line in lines[-3:])
        return "refused: " + reason.replace(str(folder), SEEN).replace(real, SEEN)[-300:] + "\n"
    return out


def sections(file):
    """The parts of a file that lines with `=== NAME` begin."""
    parts, name = {}, None
    for line in file.read_text().splitlines(keepends=True):
        if line.startswith("=== "):
            name = line[4:].strip()
            parts[name] = ""
        else:
            parts[name] += line
    return parts


class Loader(yaml.SafeLoader):
    """YAML as 1.2 has it, as far as it matters here: no octal numbers with a leading 0, no sexagesimal ones, no dates."""


Loader.yaml_implicit_resolvers = {
    key: [(tag, pattern) for tag, pattern in pairs if "timestamp" not in tag and "int" not in tag and "bool" not in tag]
    for key, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(true|false)$", re.I), list("tTfF"))
Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value, 10))
Loader.add_constructor("!reset", lambda loader, node: None)
Loader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))


def wrong(schema, text):
    """What the schema says of a text, one line each."""
    document = yaml.load(text, Loader)
    errors = jsonschema.Draft7Validator(schema).iter_errors(document)
    return sorted(f"{'.'.join(map(str, error.absolute_path))}: {error.message[:120]}" for error in errors)


def keys(schema, node, path, seen):
    """All keys that a schema knows, with `*` for names and `[]` for items."""
    reference = node.get("$ref")
    if reference:
        name = reference.split("/")[-1]
        if seen.count(name) > 0:
            return
        node, seen = schema["definitions"][name], [*seen, name]
    for word in ("oneOf", "anyOf", "allOf"):
        for one in node.get(word, []):
            yield from keys(schema, one, path, seen)
    for key, below in node.get("properties", {}).items():
        yield f"{path}{key}"
        yield from keys(schema, below, f"{path}{key}.", seen)
    for pattern, below in node.get("patternProperties", {}).items():
        if not pattern.startswith("^x-"):
            yield from keys(schema, below, f"{path}*.", seen)
    if isinstance(node.get("items"), dict):
        yield from keys(schema, node["items"], f"{path}[].", seen)
    if isinstance(node.get("additionalProperties"), dict):
        yield from keys(schema, node["additionalProperties"], f"{path}*.", seen)


LENS = """
use compose_lens::{model::ComposeDocument, source::SourceId, syntax::SyntaxDocument};
fn main() {
    for file in std::env::args().skip(1) {
        println!("=== {file}");
        let text = std::fs::read_to_string(&file).unwrap();
        let syntax = SyntaxDocument::parse(SourceId::new(1), text.as_str()).unwrap();
        let parsed = ComposeDocument::parse(syntax.document());
        for said in syntax.diagnostics().iter().chain(parsed.diagnostics()) {
            println!("{}: {}", said.code().as_str(), said.message());
        }
    }
}
"""


def lens(files):
    """What the crate compose-lens says of files, by their paths."""
    with tempfile.TemporaryDirectory() as folder:
        crate = pathlib.Path(folder)
        (crate / "src").mkdir()
        (crate / "src/main.rs").write_text(LENS)
        table = '[package]\nname = "lens"\nversion = "0.1.0"\nedition = "2024"\n'
        (crate / "Cargo.toml").write_text(table + '[dependencies]\ncompose-lens = "=0.3.4"\n[workspace]\n')
        target = os.environ.get("LENS_TARGET_DIR", folder)
        command = ["cargo", "run", "--quiet", "--target-dir", target, "--", *map(str, files)]
        out = subprocess.run(command, cwd=crate, capture_output=True, text=True, check=True).stdout
        (crate / "said.txt").write_text(out)
        return sections(crate / "said.txt")


def main():
    known = list(cases())
    for program, module in PROGRAMS.items() if os.environ.get("PROGRAMS", "1") != "0" else ():
        with open(ROOT / "oracles" / f"{program}.txt", "w") as out:
            for name, folder, words in known:
                out.write(f"=== {name}\n{ask(module, folder, words)}")
    if len(sys.argv) > 1:
        schema = json.loads(pathlib.Path(sys.argv[1]).read_text())
        all_keys = sorted(set(keys(schema, schema, "", [])))
        (ROOT / "oracles" / "keys.txt").write_text("".join(f"{key}\n" for key in all_keys))
        normal = sections(ROOT / "normal.txt")
        with tempfile.TemporaryDirectory() as folder, open(ROOT / "oracles" / "compose-lens.txt", "w") as out:
            for name, text in normal.items():
                pathlib.Path(folder, f"{name}.yaml").write_text(text)
            written = {name: of_case(folder, words) for name, folder, words in known}
            forms = {name: f"{folder}/{name}.yaml" for name in normal}
            said = lens([file for files in written.values() for file in files] + list(forms.values()))
            for name, files in written.items():
                lines = [f"as written: {line}" for file in files for line in said[str(file)].splitlines()]
                lines += [f"normal: {line}" for line in said[forms[name]].splitlines()]
                out.write(f"=== {name}\n" + "".join(f"{line}\n" for line in lines))
        with open(ROOT / "oracles" / "schema.txt", "w") as out:
            for name, folder, words in known:
                files = of_case(folder, words)
                said = [f"as written: {line}" for file in files for line in wrong(schema, file.read_text())]
                said += [f"normal: {line}" for line in wrong(schema, normal[name])]
                out.write(f"=== {name}\n" + "".join(f"{line}\n" for line in said))


main()
