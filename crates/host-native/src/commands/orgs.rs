//! `convene orgs`: organizations as the Orchestrator knows them, for operators: limits, usage, blocks.

use std::time::Duration;

use clap::{Args, Subcommand};
use convene_model::{
    OrgId,
    usage::{MAX_FLAGS_LISTED, Month, OrgUsage, UsageFigures},
};
use indicatif::{HumanBytes, HumanDuration};
use serde_json::{Map, Value, json};

use super::infra::{InfraArgs, ago, block_on, text};
use crate::cli::CliError;

/// What can be done with organizations.
#[derive(Debug, Subcommand)]
pub(crate) enum OrgsCommand {
    /// List organizations that ever had a group, a limit or a block, in the order of their ids.
    List(ListArgs),
    /// Show an organization's limits, or set some of them.
    Limits(LimitsArgs),
    /// Show what an organization has used in a month, and its groups that used most.
    Usage(UsageArgs),
    /// List who went beyond a rate, the latest first.
    Abuse(AbuseArgs),
    /// Block an organization: its tokens are void at once, its connections closed within seconds.
    Block(BlockArgs),
    /// Lift an organization's block.
    Unblock(OneArgs),
}

/// `convene orgs list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only those that are blocked
    #[arg(long)]
    blocked: bool,
    /// How many at most [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    infra: InfraArgs,
}

/// `convene orgs limits`.
#[derive(Debug, Args)]
pub(crate) struct LimitsArgs {
    /// The organization
    org: OrgId,
    /// Sets one, and leaves the others; `NAME=default` gives it back to the configuration
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    set: Vec<(String, Value)>,
    #[command(flatten)]
    infra: InfraArgs,
}

/// `convene orgs usage`.
#[derive(Debug, Args)]
pub(crate) struct UsageArgs {
    /// The organization
    org: OrgId,
    /// Which month (UTC) [default: the present one]
    #[arg(long, value_name = "YYYY-MM")]
    month: Option<Month>,
    /// How many groups to name
    #[arg(long, value_name = "N", default_value_t = 10)]
    groups: u32,
    #[command(flatten)]
    infra: InfraArgs,
}

/// `convene orgs abuse`.
#[derive(Debug, Args)]
pub(crate) struct AbuseArgs {
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = MAX_FLAGS_LISTED)]
    limit: u32,
    #[command(flatten)]
    infra: InfraArgs,
}

/// `convene orgs block`.
#[derive(Debug, Args)]
pub(crate) struct BlockArgs {
    /// The organization
    org: OrgId,
    /// Why, for the operators
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    infra: InfraArgs,
}

/// `convene orgs unblock`.
#[derive(Debug, Args)]
pub(crate) struct OneArgs {
    /// The organization
    org: OrgId,
    #[command(flatten)]
    infra: InfraArgs,
}

/// `NAME=VALUE`; a value is JSON, so that numbers are numbers, or `default`.
fn setting(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("it is not NAME=VALUE")?;
    if value == "default" {
        return Ok((name.to_owned(), Value::Null));
    }
    let value: Value =
        serde_json::from_str(value).map_err(|_| format!("{value:?} is no number"))?;
    Ok((name.to_owned(), value))
}

/// Runs one of them.
pub(crate) fn run(command: OrgsCommand) -> Result<(), CliError> {
    block_on(async {
        match command {
            OrgsCommand::List(args) => list(args).await,
            OrgsCommand::Limits(args) => limits(args).await,
            OrgsCommand::Usage(args) => usage(args).await,
            OrgsCommand::Abuse(args) => abuse(args).await,
            OrgsCommand::Block(args) => block(args.org, args.infra, true, &args.reason).await,
            OrgsCommand::Unblock(args) => block(args.org, args.infra, false, "").await,
        }
    })
}

async fn list(args: ListArgs) -> Result<(), CliError> {
    let json = args.infra.json;
    let filters = [("blocked", args.blocked.then(|| "true".to_owned()))];
    let most = args.limit.unwrap_or(usize::MAX);
    let orgs = args.infra.open()?.all("/infra/orgs", &filters, "orgs", most).await?;
    for org in &orgs {
        if json {
            println!("{org}");
            continue;
        }
        let issuer = org["issuer"].as_str().unwrap_or("-");
        let (active, limit) = (&org["active_groups"], &org["max_active_groups"]);
        let mut words =
            format!("{}\t{issuer}\t{active} of {limit} groups in service", text(org, "org_id"));
        if !org["blocked_at"].is_null() {
            let (since, why) = (ago(org, "blocked_at"), text(org, "block_reason"));
            words.push_str(&format!("\tblocked {since}: {why}"));
        }
        println!("{words}");
    }
    if orgs.is_empty() && !json {
        eprintln!("There is no such organization.");
    }
    Ok(())
}

async fn limits(args: LimitsArgs) -> Result<(), CliError> {
    let LimitsArgs { org, set, infra } = args;
    let json = infra.json;
    let infra = infra.open()?;
    let target = format!("/infra/orgs/{org}/limits");
    let mut limits = infra.get(&target).await?;
    if !set.is_empty() {
        let members = limits.as_object_mut().ok_or("the limits are no object")?;
        change(members, set);
        limits = infra.put(&target, &limits).await?;
    }
    if json {
        println!("{limits}");
    } else {
        for (name, value) in limits.as_object().into_iter().flatten() {
            println!("{name}\t{value}");
        }
    }
    Ok(())
}

async fn abuse(args: AbuseArgs) -> Result<(), CliError> {
    let json = args.infra.json;
    let found = args.infra.open()?.get(&format!("/infra/abuse?limit={}", args.limit)).await?;
    let flags = found["flags"].as_array().cloned().unwrap_or_default();
    for flag in &flags {
        if json {
            println!("{flag}");
            continue;
        }
        let who = flag["user_id"].as_str().unwrap_or("the organization");
        println!(
            "{}\t{who}\t{} {} refused\tlast {}",
            text(flag, "org_id"),
            flag["count"],
            text(flag, "kind"),
            ago(flag, "last_at")
        );
    }
    if flags.is_empty() && !json {
        eprintln!("Nobody went beyond a rate.");
    }
    Ok(())
}

/// Puts settings among the limits; whether they are known the Orchestrator says.
fn change(limits: &mut Map<String, Value>, set: Vec<(String, Value)>) {
    for (name, value) in set {
        if value.is_null() {
            limits.remove(&name);
        } else {
            limits.insert(name, value);
        }
    }
}

async fn usage(args: UsageArgs) -> Result<(), CliError> {
    let UsageArgs { org, month, groups, infra } = args;
    let json = infra.json;
    let month = month.map(|month| format!("&month={month}")).unwrap_or_default();
    let target = format!("/infra/orgs/{org}/usage?limit={groups}{month}");
    let answer = infra.open()?.get(&target).await?;
    if json {
        println!("{answer}");
        return Ok(());
    }
    let usage: OrgUsage = serde_json::from_value(answer)?;
    println!("month\t{}", usage.month);
    println!(
        "groups in service\t{} now, {} at most",
        usage.active_groups, usage.peak_active_groups
    );
    println!("agents\t{}", tokens(&usage.used));
    let budget = usage.monthly_tokens.map_or("no budget".to_owned(), |most| format!("of {most}"));
    let (used, held) = (usage.budget_used_tokens, usage.budget_reserved_tokens);
    println!("budget\t{used} tokens used, {held} held, {budget}");
    let limit = usage.monthly_egress_bytes;
    let limit = limit.map_or("no limit".to_owned(), |most| format!("of {}", HumanBytes(most)));
    println!("egress\t{}, {limit}", HumanBytes(usage.used.egress_bytes));
    println!("awake\t{}", awake(&usage.used));
    for group in &usage.groups {
        let egress = HumanBytes(group.used.egress_bytes);
        let (tokens, awake) = (tokens(&group.used), awake(&group.used));
        println!("group\t{}\t{tokens}\t{egress}\t{awake}", group.group_id);
    }
    if usage.more {
        eprintln!("There are further groups; --groups names more of them.");
    }
    Ok(())
}

fn tokens(used: &UsageFigures) -> String {
    let UsageFigures { runs, input_tokens, output_tokens, cost_micro_usd, cost_unknown, .. } = used;
    let cost = dollars(*cost_micro_usd);
    let tokens =
        format!("{runs} runs, {input_tokens} tokens read, {output_tokens} written, {cost}");
    if *cost_unknown == 0 {
        return tokens;
    }
    format!("{tokens} ({cost_unknown} of unknown cost)")
}

/// Millionths of a US dollar in dollars.
fn dollars(micro_usd: u64) -> String {
    format!("{}.{:06} USD", micro_usd / 1_000_000, micro_usd % 1_000_000)
}

fn awake(used: &UsageFigures) -> String {
    HumanDuration(Duration::from_secs(used.active_secs)).to_string()
}

async fn block(org: OrgId, infra: InfraArgs, blocked: bool, reason: &str) -> Result<(), CliError> {
    let json = infra.json;
    let body = json!({"blocked": blocked, "reason": reason});
    let answer = infra.open()?.put(&format!("/infra/orgs/{org}/block"), &body).await?;
    if json {
        println!("{answer}");
    } else if blocked {
        println!("{org} is blocked. Its tokens are void; what is open is closed within seconds.");
    } else {
        println!("{org} is not blocked.");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_a_number_or_gives_the_limit_back() {
        assert_eq!(setting("max_active_groups=5"), Ok(("max_active_groups".into(), json!(5))));
        assert_eq!(setting("a=default"), Ok(("a".into(), Value::Null)));
        assert!(setting("a").is_err() && setting("a=many").is_err());
        let mut limits = Map::from_iter([("a".to_owned(), json!(1)), ("b".to_owned(), json!(2))]);
        change(&mut limits, vec![("a".into(), Value::Null), ("c".into(), json!(3))]);
        assert_eq!(Value::Object(limits), json!({"b": 2, "c": 3}));
    }
}
