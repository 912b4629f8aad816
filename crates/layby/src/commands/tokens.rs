//! `layby token`: who may use the node over the network, and its registry.

use anyhow::Result;
use jiff::Timestamp;
use layby_control::Role;
use layby_control::api::types::{NewToken, TokenBody, TokenView};

use crate::cli::{Token, TokenRole};
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
            role,
            apps,
            expires,
            json,
        } => {
            let body = TokenBody {
                name,
                // With a role, the node knows what that means at the registry.
                pull: pull || (!push && role.is_none()),
                push,
                repository,
                role: role.map(TokenRole::role),
                apps,
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
    let mut table = show::table(&["TOKEN", "ROLE", "APPS", "MAY", "REPOSITORIES", "EXPIRES"]);
    for token in tokens {
        let may = match (token.pull, token.push) {
            (true, true) => "pull, push",
            (true, false) => "pull",
            (false, true) => "push",
            (false, false) => "-",
        };
        let expires = expiry(token.expires_at.as_deref(), Timestamp::now());
        let role = token.role.map_or("-", Role::text).to_owned();
        let apps = match (token.role, token.apps.is_empty()) {
            (None, _) => "-".to_owned(),
            (Some(_), true) => "all".to_owned(),
            (Some(_), false) => token.apps.join(", "),
        };
        let may = may.to_owned();
        table.add_row(vec![token.name, role, apps, may, token.repository, expires]);
    }
    show::print(&table);
    Ok(())
}

/// When it ends, to the second; a time that cannot be read is shown as it is.
fn expiry(at: Option<&str>, now: Timestamp) -> String {
    let Some(text) = at else {
        return "never".to_owned();
    };
    let Ok(at) = text.parse::<Timestamp>() else {
        return text.to_owned();
    };
    let shown = at.strftime("%Y-%m-%dT%H:%M:%SZ");
    match at <= now {
        true => format!("{shown} (expired)"),
        false => shown.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_token_is_shown_to_the_second_and_marked_when_it_is_over() {
        let now = "2026-03-10T12:00:00Z".parse().expect("a time");
        for (at, shown) in [
            (None, "never"),
            (
                Some("2026-03-10T12:00:00.123456789Z"),
                "2026-03-10T12:00:00Z",
            ),
            (
                Some("2026-03-09T11:00:00.5Z"),
                "2026-03-09T11:00:00Z (expired)",
            ),
            (Some("soon"), "soon"),
        ] {
            assert_eq!(expiry(at, now), shown);
        }
    }
}
