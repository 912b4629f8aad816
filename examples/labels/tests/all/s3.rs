//! The S3 client with the real server of the stack.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use labels::store::s3::{S3Settings, S3Store};
use labels::store::{ObjectStore, StoreError};

use crate::common::wait;

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn settings(port: u16, secret: &str) -> S3Settings {
    S3Settings {
        s3_endpoint: format!("http://127.0.0.1:{port}"),
        s3_bucket: "labels".into(),
        s3_region: "us-east-1".into(),
        s3_virtual_host: false,
        s3_access_key: "labels".into(),
        s3_secret_key: secret.into(),
        s3_secret_key_file: None,
    }
}

#[test]
#[ignore = "needs rclone, which cargo xtask example labels fetches: cargo xtask test --examples"]
fn objects_are_kept_listed_in_pages_and_only_for_who_has_the_key() {
    let rclone = concat!(env!("CARGO_MANIFEST_DIR"), "/store/dist/rclone");
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let folder = tempfile::tempdir().unwrap();
    let _server = Server(
        Command::new(rclone)
            .args([
                "serve",
                "s3",
                "--config",
                "",
                "--addr",
                &format!("127.0.0.1:{port}"),
            ])
            .arg(folder.path())
            .env("RCLONE_AUTH_KEY", "\"labels,a secret\"")
            .stderr(Stdio::null())
            .spawn()
            .expect("rclone"),
    );
    let store = S3Store::new(&settings(port, "a secret")).unwrap();
    wait(|| store.make_bucket().map_err(|error| error.to_string()));
    assert!(store.make_bucket().is_ok(), "it is there already");
    let picture = vec![7; 3 << 20];
    store.put("originals/one", &picture, "image/png").unwrap();
    store.put("originals/one", &picture, "image/png").unwrap();
    assert_eq!(store.get("originals/one").unwrap(), Some(picture));
    assert_eq!(store.get("originals/two").unwrap(), None);
    assert_eq!(store.list("nothing/").unwrap(), [""; 0]);
    std::thread::scope(|scope| {
        for part in 0..8 {
            let store = &store;
            scope.spawn(move || {
                for number in (part..1_200).step_by(8) {
                    store
                        .put(
                            &format!("edits/{number:04} a+b.json"),
                            b"{}",
                            "application/json",
                        )
                        .unwrap();
                }
            });
        }
    });
    let keys = store.list("edits/").unwrap();
    assert_eq!(keys.len(), 1_200, "in more than one page");
    assert_eq!(
        (keys[0].as_str(), keys[1_199].as_str()),
        ("edits/0000 a+b.json", "edits/1199 a+b.json")
    );
    assert_eq!(store.get(&keys[5]).unwrap().as_deref(), Some(&b"{}"[..]));
    let stranger = S3Store::new(&settings(port, "another")).unwrap();
    let refused = stranger.get("originals/one").unwrap_err();
    assert!(
        matches!(refused, StoreError::Refused { status: 403, .. }),
        "{refused}"
    );
    assert!(!refused.to_string().contains("another"), "{refused}");
}
