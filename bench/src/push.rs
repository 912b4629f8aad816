//! A push to the node's registry until the revision that it makes serves.
//!
//! Each image differs from the one before in its last layer and in how many bytes it answers. Three pushes are measured:
//! skopeo's of an image with one new layer; skopeo's with all layers there already; and the manifest's PUT alone, by hand.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::app::{App, bare};
use crate::beside::quiet;
use crate::figures::{Samples, line};
use crate::http::Connection;
use crate::node::Node;

/// What is promised, beyond the program's own boot.
const AT_MOST_MS: f64 = 300.0;
const HOST: &str = "web.push.localhost";
const REPOSITORY: &str = "bench/web";
/// A rollout that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many bytes the first image answers; each further one answers one more.
const FIRST_BYTES: usize = 1000;
const COMPOSE: &str = "name: push
services:
  web:
    image: registry/bench/web:1
    x-layby: {deploy_on_push: true, sleep: {doze_after: never, sleep_after: never}}
";

/// What was measured, in milliseconds.
#[derive(Default)]
struct Pushes {
    bare: Samples,
    /// skopeo with one new layer, until it serves.
    layer: Samples,
    /// The same where nothing is deployed: skopeo alone.
    skopeo: Samples,
    /// skopeo with all layers there.
    tag: Samples,
    /// The manifest's PUT, from its first byte.
    put: Samples,
    /// From its answer.
    answered: Samples,
}

struct World<'a> {
    node: &'a Node,
    registry: SocketAddr,
    /// `user:password`.
    login: String,
    /// OCI layouts, one for each image.
    layouts: PathBuf,
    client: Connection,
}

/// Measures `rounds` of each push and prints the lines.
pub(crate) fn pushes(layby: &Path, dir: &Path, rounds: usize) -> Result<()> {
    let app = App::new(COMPOSE)?;
    let node = Node::start(layby)?;
    let version = node.json(&["version", "--json"])?;
    let registry = version["node"]["registry"].as_str();
    let token = ["token", "create", "bench", "--push", "--pull"];
    let secret = node.run(Path::new("/"), &token)?;
    let mut world = World {
        node: &node,
        registry: registry.context("the node has no registry")?.parse()?,
        login: format!("bench:{}", secret.trim()),
        layouts: dir.join("layouts"),
        client: Connection::open(node.gateway()?)?,
    };
    for image in 0..=rounds * 3 {
        world.build(&app, image)?;
    }
    world.skopeo(0, "1")?;
    node.run(app.path(), &["up"])?;
    world.client.get(HOST, "/")?;
    let mut pushes = Pushes::default();
    for round in 0..rounds {
        world.round(round * 3 + 1, &mut pushes)?;
        pushes.bare.push(bare()?);
    }
    print(&pushes);
    Ok(())
}

impl World<'_> {
    /// Makes the layout of one image.
    fn build(&self, app: &App, image: usize) -> Result<()> {
        app.change(FIRST_BYTES + image)?;
        let layout = self.layout(image);
        fs::create_dir_all(&layout)?;
        let archive = layout.join("archive");
        let file = archive.to_str().context("the path is not UTF-8")?;
        let name = format!("push:{image}");
        let quietly = ["build", "--progress", "quiet", "-t", &name];
        self.node.run(app.path(), &quietly)?;
        self.node
            .run(Path::new("/"), &["image", "save", &name, "-o", file])?;
        quiet(
            Command::new("tar")
                .arg("-xf")
                .arg(&archive)
                .arg("-C")
                .arg(&layout),
        )?;
        Ok(fs::remove_file(archive)?)
    }

    /// One of each push, with three images that the registry does not know.
    fn round(&mut self, image: usize, pushes: &mut Pushes) -> Result<()> {
        let begun = Instant::now();
        let mut skopeo = self.copy(image, "1").spawn()?;
        let served = self.until_served(image).map(|()| begun.elapsed());
        let status = skopeo.wait()?;
        pushes.layer.push(served?);
        if !status.success() {
            bail!("skopeo could not push image {image}");
        }
        self.settle()?;

        let begun = Instant::now();
        self.skopeo(image + 1, "staged")?;
        pushes.skopeo.push(begun.elapsed());
        let begun = Instant::now();
        let mut skopeo = self.copy(image + 1, "1").spawn()?;
        let served = self.until_served(image + 1).map(|()| begun.elapsed());
        skopeo.wait()?;
        pushes.tag.push(served?);
        self.settle()?;

        self.skopeo(image + 2, "staged")?;
        let (from_start, from_answer) = self.put(image + 2)?;
        pushes.put.push(from_start);
        pushes.answered.push(from_answer);
        self.settle()
    }

    /// Moves the tag by hand to an image whose layers are there: from the PUT's first byte, and from its answer.
    fn put(&mut self, image: usize) -> Result<(Duration, Duration)> {
        let mut registry = Connection::open(self.registry)?;
        let host = self.registry;
        let login = STANDARD.encode(&self.login);
        let path = format!("/v2/{REPOSITORY}/manifests");
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let get = format!(
            "GET {path}/staged HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic {login}\r\nAccept: {kind}\r\n\r\n"
        );
        let manifest = registry.send(get.as_bytes())?;
        if manifest.status != "200" {
            bail!("the registry gave no manifest: {}", manifest.status);
        }
        let length = manifest.body.len();
        let mut put = format!(
            "PUT {path}/1 HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic {login}\r\nContent-Type: {kind}\r\n\
             Content-Length: {length}\r\n\r\n"
        )
        .into_bytes();
        put.extend(&manifest.body);
        let begun = Instant::now();
        let answer = registry.send(&put)?;
        let answered = begun.elapsed();
        if answer.status != "201" {
            bail!("the registry took no manifest: {}", answer.status);
        }
        self.until_served(image)?;
        let served = begun.elapsed();
        Ok((served, served - answered))
    }

    /// Asks the gateway until the image answers.
    fn until_served(&mut self, image: usize) -> Result<()> {
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        let begun = Instant::now();
        while self.client.send(request.as_bytes())?.body.len() != FIRST_BYTES + image {
            if begun.elapsed() > PATIENCE {
                bail!("image {image} was pushed and never served");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// The rollout has ended: what was replaced is gone.
    fn settle(&self) -> Result<()> {
        self.node
            .run(Path::new("/"), &["deploy", "push/web", "--follow"])?;
        std::thread::sleep(Duration::from_millis(500));
        Ok(())
    }

    fn skopeo(&self, image: usize, tag: &str) -> Result<()> {
        quiet(&mut self.copy(image, tag)).map(drop)
    }

    fn copy(&self, image: usize, tag: &str) -> Command {
        let mut command = Command::new("skopeo");
        command.args(["copy", "--quiet", "--dest-tls-verify=false"]);
        command.args(["--dest-creds", &self.login]);
        command.arg(format!("oci:{}", self.layout(image).display()));
        command.arg(format!("docker://{}/{REPOSITORY}:{tag}", self.registry));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn layout(&self, image: usize) -> PathBuf {
        self.layouts.join(image.to_string())
    }
}

fn print(pushes: &Pushes) {
    let bare = pushes.bare.median();
    println!(
        "pushes until served, medians of {}: bare program {bare:.1} ms, skopeo alone with one new layer {:.1} ms",
        pushes.bare.len(),
        pushes.skopeo.median()
    );
    let beyond = |what: &str, samples: &Samples| {
        line(what, samples.median() - bare, "ms", AT_MOST_MS);
    };
    beyond("push of one new layer, skopeo included", &pushes.layer);
    beyond("push with all layers there, skopeo included", &pushes.tag);
    beyond("PUT of the manifest, from its first byte", &pushes.put);
    beyond("PUT of the manifest, from its answer", &pushes.answered);
}
