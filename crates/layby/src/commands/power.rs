//! `layby scale` and `layby power`.

use anyhow::Result;
use layby_control::api::types::{
    AdviceView, PowerBody, PowerView, PresetBody, ScaleBody, ScaleView, ServiceDetail, SizeView,
};
use layby_model::power;

use crate::cli::{Power, Powers, Scale};
use crate::client::{Client, encode};
use crate::commands::named;
use crate::commands::scaling;
use crate::commands::services::find;
use crate::events;
use crate::exit::{Code, Exit};
use crate::out::{say, tell};
use crate::show;

/// Gives a service another number of replicas, or shows how it came to the one that it has.
///
/// # Errors
/// No node answers, the name fits none or several, or it could not be reached.
pub(crate) async fn scale(client: &Client, options: &Scale) -> Result<()> {
    let what = "set `replicas:` of it in its manifest, and `layby up`: that adds pods with volumes of their own, and removes \
                those that are too many with `--remove-orphans` (`layby disable` stops all); its pods are";
    let path = named::find_one(client, &options.name.name, what).await?;
    if options.replicas.is_none() && !options.reset {
        let view: ScaleView = client.get(&format!("{path}/scale"), &[]).await?;
        match options.auto {
            true => has_policy(&view, &options.name.name)?,
            false => return scaling::show(&view, options.json.json),
        }
    }
    let body = ScaleBody {
        replicas: options.replicas,
    };
    let query = [("detach", options.detach.to_string())];
    let path = format!("{path}/scale");
    let lines = client.post_for_lines(&path, &query, &body).await?;
    events::show(client, lines, events::Style::Auto).await
}

/// Refuses a service that nothing but a number scales.
fn has_policy(view: &ScaleView, name: &str) -> Result<()> {
    if view.policy.is_some() {
        return Ok(());
    }
    let text = format!(
        "nothing scales {name} but a number: its manifest has no `x-layby: {{scale: ...}}`; `layby scale {name} --reset` gives it as many as that says"
    );
    Err(Exit::new(Code::Failed, text).into())
}

/// Does what `options` say.
///
/// # Errors
/// As [`scale`]; or the rollout failed.
pub(crate) async fn power(client: &Client, options: Power) -> Result<()> {
    match &options.command {
        Some(Powers::Ls(form)) => return ls(client, form.json).await,
        Some(Powers::Set { power, cpu, memory }) => {
            return set(client, power, *cpu, *memory).await;
        }
        Some(Powers::Rm { power }) => {
            let path = format!("/v1/powers/{}", encode(power));
            client.forget(&path, &[]).await?;
            say!("{power}  removed");
            return Ok(());
        }
        None => {}
    }
    let name = options.name.as_deref().unwrap_or_default();
    let path = find(client, name).await?;
    if options.power.is_none() && !options.reset && !options.advise {
        return show_power(client, &path, options.json.json).await;
    }
    let power = match options.advise {
        true => match advise(client, &path, &options).await? {
            Some(power) => Some(power),
            None => return Ok(()),
        },
        false => options.power,
    };
    change(client, &path, power, options.detach).await
}

/// What a service has, as JSON.
#[derive(serde::Serialize)]
struct Has<'a> {
    /// The name of its power; `null`: its limits have none, or it has none.
    power: Option<&'a str>,
    #[serde(flatten)]
    size: &'a SizeView,
}

/// Prints the power of the service at `path`, and what it means.
async fn show_power(client: &Client, path: &str, json: bool) -> Result<()> {
    let detail: ServiceDetail = client.get(path, &[]).await?;
    match json {
        true => {
            let has = Has {
                power: detail.view.power.as_deref(),
                size: &detail.size,
            };
            say!("{}", serde_json::to_string_pretty(&has)?);
        }
        false => say!("{}", show::power_line(&detail)),
    }
    Ok(())
}

/// Tells what is proposed; gives the power that is to be applied now.
async fn advise(client: &Client, path: &str, options: &Power) -> Result<Option<String>> {
    let view: AdviceView = client.get(&format!("{path}/power"), &[]).await?;
    let changes = view.proposed.is_some() && view.proposed != view.power;
    if options.json.json {
        say!("{}", serde_json::to_string_pretty(&view)?);
    } else {
        view.texts.iter().for_each(|text| say!("{text}"));
    }
    if !options.apply {
        let name = options.name.as_deref().unwrap_or_default();
        if changes && !options.json.json {
            tell!("`layby power {name} --advise --apply` gives it that");
        }
        return Ok(None);
    }
    match view.proposed {
        Some(power) => Ok(changes.then_some(power)),
        None => Err(Exit::new(Code::Failed, "nothing is proposed, so nothing was changed").into()),
    }
}

/// Gives the service at `path` a power; `None`: what its manifest says.
async fn change(client: &Client, path: &str, power: Option<String>, detach: bool) -> Result<()> {
    let query = [("detach", detach.to_string())];
    let body = PowerBody { power };
    let lines = client
        .post_for_lines(&format!("{path}/power"), &query, &body)
        .await;
    let lines = events::begun(lines, path)?;
    events::show(client, lines, events::Style::Auto).await
}

async fn ls(client: &Client, json: bool) -> Result<()> {
    let powers: Vec<PowerView> = client.get("/v1/powers", &[]).await?;
    if json {
        say!("{}", serde_json::to_string_pretty(&powers)?);
        return Ok(());
    }
    let mut table = show::table(&["POWER", "CPU", "MEMORY", "SERVICES"]);
    for view in powers {
        let name = match view.built_in {
            true => view.name,
            false => format!("{} (own)", view.name),
        };
        let services = match view.services.is_empty() {
            true => "-".to_owned(),
            false => view.services.join(", "),
        };
        table.add_row(vec![
            name,
            power::cpu(view.cpu_milli),
            power::memory(view.memory_bytes),
            services,
        ]);
    }
    show::print(&table);
    Ok(())
}

async fn set(client: &Client, name: &str, cpu_milli: u64, memory_bytes: u64) -> Result<()> {
    let body = PresetBody {
        cpu_milli,
        memory_bytes,
    };
    let path = format!("/v1/powers/{}", encode(name));
    let view: PowerView = client.put_json(&path, &body).await?;
    say!(
        "{name}  {} CPU, {}",
        power::cpu(view.cpu_milli),
        power::memory(view.memory_bytes)
    );
    for service in view.outdated {
        tell!("{service} keeps what {name} was: `layby power {service} {name}` rolls it out");
    }
    Ok(())
}
