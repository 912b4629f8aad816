//! `layby token`: who may use the node's registry.

use anyhow::Result;
use layby_control::api::types::{NewToken, TokenBody, TokenView};

use crate::cli::Token;
use crate::client::{Client, encode};
use crate::out::{say, tell};
use crate::show;

/// Does what `command` says.
///
/// # Errors
/// What the node refused.
pub(crate) async fn token(client: &Client, command: Token) -> Result<()> {
    match command {
        Token::Create {
            name,
            push,
            pull,
            repository,
            expires,
            json,
        } => {
            let body = TokenBody {
                name,
                pull: pull || !push,
                push,
                repository,
                expires_s: expires,
            };
            let made: NewToken = client.post_json("/v1/tokens", &body).await?;
            if json.json {
                say!("{}", serde_json::to_string_pretty(&made)?);
            } else {
                // Nothing else on standard output: it can be piped to `docker login --password-stdin`.
                tell!(
                    "The token {} is made. Its secret is shown only now:",
                    made.token.name
                );
                say!("{}", made.secret);
            }
            Ok(())
        }
        Token::Ls(form) => ls(client, form.json).await,
        Token::Rm { name } => {
            let path = format!("/v1/tokens/{}", encode(&name));
            client.forget(&path, &[]).await?;
            say!("{name}  removed");
            Ok(())
        }
    }
}

async fn ls(client: &Client, json: bool) -> Result<()> {
    let tokens: Vec<TokenView> = client.get("/v1/tokens", &[]).await?;
    if json {
        say!("{}", serde_json::to_string_pretty(&tokens)?);
        return Ok(());
    }
    let mut table = show::table(&["TOKEN", "MAY", "REPOSITORIES", "EXPIRES"]);
    for token in tokens {
        let may = match (token.pull, token.push) {
            (true, true) => "pull, push",
            (true, false) => "pull",
            (false, _) => "push",
        };
        let expires = token.expires_at.unwrap_or_else(|| "never".to_owned());
        table.add_row(vec![token.name, may.to_owned(), token.repository, expires]);
    }
    show::print(&table);
    Ok(())
}
