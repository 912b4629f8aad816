//! A headless Chromium, driven by the WebDriver protocol (W3C), as far as the tests need it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;

use crate::common::{agent, wait};

/// What the protocol calls an element's id by.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A running chromedriver; ended when dropped.
pub(crate) struct Driver {
    process: Child,
    url: String,
}

/// One browser of it.
pub(crate) struct Browser {
    agent: Agent,
    url: String,
    _profile: TempDir,
}

impl Driver {
    pub(crate) fn start() -> Driver {
        let mut process = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = lines.by_ref().find_map(|line| {
            let line = line.unwrap();
            let port = line.split("successfully on port ").nth(1)?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        std::thread::spawn(move || lines.for_each(drop));
        Driver {
            process,
            url: format!("http://127.0.0.1:{}", port.expect("a port")),
        }
    }

    /// Opens a browser, with JavaScript or without.
    pub(crate) fn open(&self, with_javascript: bool) -> Browser {
        let profile = tempfile::tempdir().unwrap();
        let mut arguments: Vec<String> = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
        ]
        .map(String::from)
        .into();
        arguments.push(format!("--user-data-dir={}", profile.path().display()));
        if !with_javascript {
            arguments.push("--blink-settings=scriptEnabled=false".into());
        }
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let agent = agent();
        let session = ask(
            &agent,
            "POST",
            &format!("{}/session", self.url),
            Some(&capabilities),
        )
        .unwrap();
        Browser {
            url: format!(
                "{}/session/{}",
                self.url,
                session["sessionId"].as_str().unwrap()
            ),
            agent,
            _profile: profile,
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its processes are not the driver's children alone: it must be told.
        let _ = ask(&self.agent, "DELETE", &self.url, None);
    }
}

impl Browser {
    pub(crate) fn go(&self, url: &str) {
        self.post("/url", &json!({"url": url}));
    }

    pub(crate) fn resize(&self, width: u32, height: u32) {
        self.post("/window/rect", &json!({"width": width, "height": height}));
    }

    /// A PNG of what is in the window.
    pub(crate) fn screenshot(&self) -> Vec<u8> {
        let picture = ask(
            &self.agent,
            "GET",
            &format!("{}/screenshot", self.url),
            None,
        )
        .unwrap();
        STANDARD.decode(picture.as_str().unwrap()).unwrap()
    }

    /// Runs a script in the page, and gives what it returns.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({"script": script, "args": []}))
    }

    pub(crate) fn click(&self, selector: &str) {
        let element = self.find(selector).unwrap();
        self.post(&format!("/element/{element}/click"), &json!({}));
    }

    pub(crate) fn clear(&self, selector: &str) {
        let element = self.find(selector).unwrap();
        self.post(&format!("/element/{element}/clear"), &json!({}));
    }

    pub(crate) fn type_into(&self, selector: &str, text: &str) {
        let element = self.find(selector).unwrap();
        self.post(&format!("/element/{element}/value"), &json!({"text": text}));
    }

    pub(crate) fn text(&self, selector: &str) -> String {
        self.try_text(selector).unwrap()
    }

    pub(crate) fn attribute(&self, selector: &str, name: &str) -> String {
        let element = self.find(selector).unwrap();
        let url = format!("{}/element/{element}/property/{name}", self.url);
        ask(&self.agent, "GET", &url, None)
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Waits until an element's text has this in it.
    pub(crate) fn wait_for_text(&self, selector: &str, part: &str) {
        wait(|| match self.try_text(selector) {
            Ok(text) if text.contains(part) => Ok(()),
            other => Err(format!("{selector} shows {other:?} and not {part:?}")),
        });
    }

    /// What the browser wrote to its console: scripts that failed, what its policy kept from loading.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({"type": "browser"}));
        let lines = log
            .as_array()
            .unwrap()
            .iter()
            .map(|line| line["message"].as_str().unwrap().to_owned());
        // The page that is not there, and the icon that every browser asks for.
        lines.filter(|line| !line.contains("404")).collect()
    }

    fn try_text(&self, selector: &str) -> Result<String, String> {
        let element = self.find(selector)?;
        let url = format!("{}/element/{element}/text", self.url);
        let text = ask(&self.agent, "GET", &url, None)?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    fn find(&self, selector: &str) -> Result<String, String> {
        let question = json!({"using": "css selector", "value": selector});
        let found = ask(
            &self.agent,
            "POST",
            &format!("{}/element", self.url),
            Some(&question),
        )?;
        Ok(found[ELEMENT].as_str().unwrap().to_owned())
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        ask(
            &self.agent,
            "POST",
            &format!("{}{path}", self.url),
            Some(body),
        )
        .unwrap()
    }
}

/// One command; its value, or what the driver says against it.
fn ask(agent: &Agent, method: &str, url: &str, body: Option<&Value>) -> Result<Value, String> {
    let answer = match (method, body) {
        ("POST", Some(body)) => agent.post(url).send(body.to_string()),
        ("DELETE", _) => agent.delete(url).call(),
        _ => agent.get(url).call(),
    };
    let mut answer = answer.map_err(|error| format!("{method} {url}: {error}"))?;
    let status = answer.status();
    let bytes = answer
        .body_mut()
        .with_config()
        .limit(64 << 20)
        .read_to_vec()
        .map_err(|error| error.to_string())?;
    let mut json: Value = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    let value = json["value"].take();
    if status.is_success() {
        Ok(value)
    } else {
        Err(format!("{method} {url}: {value}"))
    }
}
