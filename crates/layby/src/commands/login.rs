//! `layby login` and `logout`: who the node is at other registries.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use anyhow::{Context, Result, bail};
use layby_control::api::types::{LoginBody, LoginView};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use crate::cli::Login;
use crate::client::Client;
use crate::out::{say, tell};
use crate::show;

/// The longest password that is read, in bytes.
const MAX_PASSWORD_BYTES: u64 = 64 << 10;

/// Logs the node in, or says where it is logged in.
///
/// # Errors
/// What the registry said, or nobody is there to ask for user and password.
pub(crate) async fn login(client: &Client, options: Login) -> Result<()> {
    if options.list {
        return list(client, options.json).await;
    }
    if options.is_for_a_node() {
        bail!(
            "--token-stdin, --name, --fingerprint and --ca are for a node: write its URL with https:// before {}",
            options.registry
        );
    }
    let user = match options.user {
        Some(user) => user,
        None => ask("User: ", false).context("say who with -u USER")?,
    };
    let password = match options.password_stdin {
        true => password_from_stdin()?,
        false => ask("Password: ", true).context("give the password with --password-stdin")?,
    };
    if password.is_empty() {
        bail!("the password is empty: nothing was sent");
    }
    let body = LoginBody {
        registry: options.registry,
        user,
        password,
    };
    let login: LoginView = client.post_json("/v1/registries", &body).await?;
    let user = login.user.unwrap_or_default();
    say!("{}  logged in as {user}", login.registry);
    Ok(())
}

/// Forgets a registry's user and password.
///
/// # Errors
/// There are none.
pub(crate) async fn logout(client: &Client, registry: &str) -> Result<()> {
    let query = [("registry", registry.to_owned())];
    client.forget("/v1/registries", &query).await?;
    say!("{registry}  logged out");
    Ok(())
}

async fn list(client: &Client, json: bool) -> Result<()> {
    let logins: Vec<LoginView> = client.get("/v1/registries", &[]).await?;
    if json {
        say!("{}", serde_json::to_string_pretty(&logins)?);
        return Ok(());
    }
    let mut table = show::table(&["REGISTRY", "USER"]);
    for login in logins {
        let user = login.user.unwrap_or_else(|| "-".to_owned());
        table.add_row(vec![login.registry, user]);
    }
    show::print(&table);
    Ok(())
}

/// A password or token on standard input, without the end of its line.
pub(crate) fn password_from_stdin() -> Result<String> {
    let mut text = String::new();
    io::stdin()
        .take(MAX_PASSWORD_BYTES)
        .read_to_string(&mut text)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks at the terminal; a secret is not echoed.
pub(crate) fn ask(question: &str, secret: bool) -> Result<String> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        bail!("there is no terminal to ask at");
    }
    eprint!("{question}");
    io::stderr().flush()?;
    let mut line = String::new();
    let before = tcgetattr(&stdin)?;
    if secret {
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(&stdin, SetArg::TCSAFLUSH, &silent)?;
    }
    let read = stdin.lock().take(MAX_PASSWORD_BYTES).read_line(&mut line);
    if secret {
        tcsetattr(&stdin, SetArg::TCSAFLUSH, &before)?;
        tell!("");
    }
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
