//! A web application on a free port of 127.0.0.1, its store in memory, its reader under the test's control.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use labels::label::extract::extract;
use labels::library::Library;
use labels::picture::MediaType;
use labels::queue::Queue;
use labels::reader::{ReadError, Reader};
use labels::reading::{Line, Reading};
use labels::store::ObjectStore;
use labels::store::memory::MemoryStore;
use labels::web;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use ureq::Agent;

/// No condition is waited for longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A label's text that passes all rules of a food.
pub(crate) const GRANOLA: &str = "OAT & HONEY GRANOLA
NET WT 12 OZ (340 g)

Nutrition Facts
6 servings per container
Serving size 2/3 cup (55g)
Calories 230
Total Fat 8g 10%
Saturated Fat 1g 5%
Trans Fat 0g
Cholesterol 0mg 0%
Sodium 160mg 7%
Total Carbohydrate 37g 13%
Dietary Fiber 4g 14%
Total Sugars 12g
Includes 10g Added Sugars 20%
Protein 3g
Vitamin D 2mcg 10%
Calcium 260mg 20%
Iron 8mg 45%
Potassium 240mg 6%

INGREDIENTS: WHOLE GRAIN OATS, SUGAR, HONEY, ALMONDS, SALT.
CONTAINS: TREE NUTS.
Distributed by Hill & Dale Foods, Portland, OR 97201
";

/// Reads what it was told that pictures say.
#[derive(Default)]
pub(crate) struct ToldReader {
    told: Mutex<Told>,
    changed: Condvar,
}

#[derive(Default)]
struct Told {
    texts: HashMap<Vec<u8>, String>,
    /// How often it still fails first.
    failures: u32,
    /// How often it takes too long first.
    slow: u32,
    /// How often it panics first.
    panics: u32,
    /// Nothing is answered meanwhile.
    held: bool,
    reading: usize,
    reading_most: usize,
    asked: usize,
}

impl ToldReader {
    /// Tells it what a picture says; of others it says that they cannot be read.
    pub(crate) fn tell(&self, picture: &[u8], text: &str) {
        self.told
            .lock()
            .unwrap()
            .texts
            .insert(picture.to_vec(), text.into());
    }

    pub(crate) fn fail(&self, times: u32) {
        self.told.lock().unwrap().failures = times;
    }

    pub(crate) fn be_slow(&self, times: u32) {
        self.told.lock().unwrap().slow = times;
    }

    pub(crate) fn panic(&self, times: u32) {
        self.told.lock().unwrap().panics = times;
    }

    pub(crate) fn hold(&self, held: bool) {
        self.told.lock().unwrap().held = held;
        self.changed.notify_all();
    }

    pub(crate) fn asked(&self) -> usize {
        self.told.lock().unwrap().asked
    }

    pub(crate) fn reading(&self) -> usize {
        self.told.lock().unwrap().reading
    }

    pub(crate) fn reading_most(&self) -> usize {
        self.told.lock().unwrap().reading_most
    }
}

impl Reader for ToldReader {
    fn read(&self, bytes: &[u8], _media_type: MediaType) -> Result<Reading, ReadError> {
        let mut told = self.told.lock().unwrap();
        told.asked += 1;
        told.reading += 1;
        told.reading_most = told.reading_most.max(told.reading);
        let mut told = self.changed.wait_while(told, |told| told.held).unwrap();
        told.reading -= 1;
        if told.failures > 0 {
            told.failures -= 1;
            return Err(ReadError::Later("it was killed".into()));
        }
        if told.slow > 0 {
            told.slow -= 1;
            return Err(ReadError::Slow("it was not read in time".into()));
        }
        if told.panics > 0 {
            told.panics -= 1;
            drop(told);
            panic!("as it was told");
        }
        let Some(text) = told.texts.get(bytes) else {
            return Err(ReadError::Refused("there is no text in it".into()));
        };
        let line = |text: &str| Line {
            text: text.into(),
            confidence: 90.0,
            at: [0; 4],
        };
        Ok(Reading {
            engine: "told 1".into(),
            sha256: String::new(),
            width: 1,
            height: 1,
            text: text.clone(),
            lines: text.lines().map(line).collect(),
            confidence: 90.0,
            fields: extract(text),
            took_ms: 1,
        })
    }
}

/// A running web application. Dropped, it is gone; its store stays with whoever holds it.
pub(crate) struct Webapp {
    pub(crate) addr: SocketAddr,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) reader: Arc<ToldReader>,
    pub(crate) library: Arc<Library>,
    agent: Agent,
    _runtime: Runtime,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.bytes.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

impl Webapp {
    pub(crate) fn start() -> Webapp {
        let webapp = Webapp::start_on(Arc::default(), Arc::default());
        webapp.wait_until_open();
        webapp
    }

    pub(crate) fn wait_until_open(&self) {
        wait(|| match self.get("/healthz") {
            Reply { status: 200, .. } => Ok(()),
            other => Err(other.text()),
        });
    }

    /// Starts one on a store that is there, as the next one does after one was killed.
    pub(crate) fn start_on(store: Arc<MemoryStore>, reader: Arc<ToldReader>) -> Webapp {
        let library = Arc::new(Library::new(Arc::clone(&store) as Arc<dyn ObjectStore>));
        let of = Arc::clone(&reader) as Arc<dyn Reader>;
        let (addr, runtime) = serve(Arc::clone(&library), of);
        Webapp {
            addr,
            store,
            reader,
            library,
            agent: agent(),
            _runtime: runtime,
        }
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        reply(self.agent.get(self.url(path)).call())
    }

    pub(crate) fn post(&self, path: &str, form: &[(&str, &str)]) -> Reply {
        reply(
            self.agent
                .post(self.url(path))
                .send_form(form.iter().copied()),
        )
    }

    /// As a page of that origin would send it.
    pub(crate) fn post_from(&self, origin: &str, path: &str, form: &[(&str, &str)]) -> Reply {
        reply(
            self.agent
                .post(self.url(path))
                .header("origin", origin)
                .send_form(form.iter().copied()),
        )
    }

    /// Uploads pictures with one form, as a browser without JavaScript does.
    pub(crate) fn upload(&self, category: &str, files: &[(&str, &[u8])], accept: &str) -> Reply {
        let (boundary, body) = multipart(category, "Ada", files);
        let request = self
            .agent
            .post(self.url("/upload"))
            .header("accept", accept);
        let kind = format!("multipart/form-data; boundary={boundary}");
        reply(request.header("content-type", kind).send(&body[..]))
    }

    /// Sends this as an upload's form.
    pub(crate) fn upload_raw(&self, body: &[u8]) -> Reply {
        let request = self.agent.post(self.url("/upload"));
        let kind = "multipart/form-data; boundary=a-boundary-that-no-picture-has";
        reply(request.header("content-type", kind).send(body))
    }

    /// Uploads one and gives its address.
    pub(crate) fn uploaded(&self, category: &str, name: &str, picture: &[u8]) -> String {
        let reply = self.upload(category, &[(name, picture)], "application/json");
        assert_eq!(reply.status, 200, "{}", reply.text());
        let sha256 = reply.json()[0]["sha256"].as_str().unwrap().to_owned();
        format!("/pictures/{sha256}")
    }

    /// Uploads a picture that says this, and waits until it is read.
    pub(crate) fn read(&self, category: &str, text: &str) -> String {
        let picture = picture(text.len() as u32);
        self.reader.tell(&picture, text);
        let path = self.uploaded(category, "label.png", &picture);
        self.wait_for(&path, "to-review");
        path
    }

    /// Waits until a picture is in that state.
    pub(crate) fn wait_for(&self, path: &str, state: &str) {
        let sha256 = path.rsplit('/').next().unwrap();
        wait(|| {
            let now = self.get(&format!("/queue.json?ids={sha256}")).json();
            let is = now["shown"][0]["state"].as_str().unwrap_or_default();
            if is == state {
                Ok(())
            } else {
                Err(format!("it is {is:?} and not {state:?}: {now}"))
            }
        });
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }
}

/// The version that a page's form names.
pub(crate) fn version(page: &str) -> String {
    let at = page.find("name=\"version\" value=\"").expect("a version") + 22;
    page[at..at + 8].to_owned()
}

pub(crate) fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(PATIENCE))
        .build()
        .into()
}

pub(crate) fn reply(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Reply {
    let mut answer = answer.unwrap();
    Reply {
        status: answer.status().as_u16(),
        headers: answer.headers().clone(),
        bytes: answer
            .body_mut()
            .with_config()
            .limit(64 << 20)
            .read_to_vec()
            .unwrap(),
    }
}

/// Serves a library on a free port of 127.0.0.1, its queue included.
pub(crate) fn serve(library: Arc<Library>, reader: Arc<dyn Reader>) -> (SocketAddr, Runtime) {
    let queue = Arc::new(Queue::new(Arc::clone(&library), reader, 4));
    let app = web::App::new(library, Arc::clone(&queue));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let addr = listener.local_addr().unwrap();
    runtime.spawn(labels::serve::serve(
        listener,
        web::router(app.clone()),
        std::future::pending(),
        web::DRAIN_MAX,
    ));
    runtime.spawn(async move {
        web::open(&app, || Ok(())).await;
        queue.run().await;
    });
    (addr, runtime)
}

/// A form with pictures (RFC 7578).
pub(crate) fn multipart(
    category: &str,
    who: &str,
    files: &[(&str, &[u8])],
) -> (&'static str, Vec<u8>) {
    let boundary = "a-boundary-that-no-picture-has";
    let mut body = Vec::new();
    for (name, value) in [("category", category), ("who", who)] {
        body.extend(
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            )
            .bytes(),
        );
    }
    for (name, bytes) in files {
        body.extend(
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"pictures\"; filename=\"{name}\"\r\nContent-Type: image/png\r\n\r\n"
            )
            .bytes(),
        );
        body.extend_from_slice(bytes);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{boundary}--\r\n").bytes());
    (boundary, body)
}

/// A small PNG, another one for each number.
pub(crate) fn picture(number: u32) -> Vec<u8> {
    let [_, high, middle, low] = number.to_be_bytes();
    let picture = image::RgbImage::from_pixel(16, 9, image::Rgb([high, middle, low]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

/// Waits until a condition holds; in the end says what held instead.
pub(crate) fn wait(condition: impl Fn() -> Result<(), String>) {
    wait_for(PATIENCE, condition);
}

/// The same, for so long.
pub(crate) fn wait_for(patience: Duration, condition: impl Fn() -> Result<(), String>) {
    let begun = Instant::now();
    loop {
        match condition() {
            Ok(()) => return,
            Err(story) => assert!(begun.elapsed() < patience, "after {patience:?}: {story}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Where Debian has the fonts that labels are drawn with.
pub(crate) fn fonts() -> PathBuf {
    PathBuf::from("/usr/share/fonts/truetype/dejavu")
}
