//! `convene healthcheck`: whether the process beside this one answers, for containers and
//! supervisors that have no other program to ask with.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use clap::Args;

use crate::{
    cli::{CliError, DataArgs},
    config::{Config, Role},
};

/// How long connecting, and each read, may take.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of an answer that are read at most; the status stands at its beginning.
const MAX_ANSWER: u64 = 4096;

/// `convene healthcheck`.
#[derive(Debug, Args)]
pub(crate) struct HealthcheckArgs {
    #[command(flatten)]
    data: DataArgs,
    /// The address to ask [default: where the configuration's service listens]
    #[arg(long, value_name = "ADDR")]
    address: Option<SocketAddr>,
    /// The service whose address is asked, where each is a process of its own
    #[arg(long, value_name = "ROLE")]
    role: Option<Role>,
    /// Ask whether everything that the process needs is there as well
    #[arg(long)]
    ready: bool,
}

/// Succeeds when the process answers with success.
pub(crate) fn run(args: HealthcheckArgs) -> Result<(), CliError> {
    let config = args.data.load()?;
    let address = match args.address {
        Some(address) => address,
        None => door(&config, args.role.or(config.role))?,
    };
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let status = ask(reachable(address), path)
        .map_err(|error| format!("{address} does not answer: {error}"))?;
    match status.as_str() {
        "200" => Ok(()),
        status => Err(format!("{address} answered {status} to {path}").into()),
    }
}

/// Where the service listens.
fn door(config: &Config, role: Option<Role>) -> Result<SocketAddr, CliError> {
    let own = match role {
        None | Some(Role::App) => Some(config.listen),
        Some(Role::Orchestrator) => config.orchestrator.listen,
        Some(Role::Controllers) => config.controllers.listen,
        Some(Role::Agents) => config.agents.listen,
    };
    own.ok_or_else(|| "the service listens nowhere by this configuration".into())
}

/// An address to connect to, for one to listen on.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The status of `GET path`, as the three digits of its first line.
fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    status.map(str::to_owned).ok_or_else(|| std::io::Error::other("no HTTP is spoken there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_to_listen_on_becomes_one_to_connect_to() {
        let reached = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:8080"), "127.0.0.1:8080");
        assert_eq!(reached("[::]:8080"), "[::1]:8080");
        assert_eq!(reached("192.0.2.1:80"), "192.0.2.1:80");
    }

    #[test]
    fn each_role_is_asked_at_its_own_door() {
        let mut config = Config::default();
        assert_eq!(door(&config, None).unwrap(), config.listen);
        assert!(door(&config, Some(Role::Agents)).is_err());
        config.agents.listen = Some(SocketAddr::from(([127, 0, 0, 1], 9)));
        assert_eq!(door(&config, Some(Role::Agents)).unwrap().port(), 9);
    }
}
