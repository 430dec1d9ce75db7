//! Who is at the other end of a connection, with the reverse proxies that are believed.

use std::{
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use http::HeaderMap;

/// A range of addresses, as in `10.0.0.0/8`, `::1` or `192.0.2.7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is not a range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address or a range like 10.0.0.0/8")]
pub struct InvalidNetwork(String);

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let wrong = || InvalidNetwork(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| wrong())?,
            None => longest,
        };
        if prefix > longest { Err(wrong()) } else { Ok(Self { address, prefix }) }
    }
}

impl Network {
    /// Whether an address lies in the range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let shift = 32 - u32::from(self.prefix);
                let mask = u32::MAX.checked_shl(shift).unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = 128 - u32::from(self.prefix);
                let mask = u128::MAX.checked_shl(shift).unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// The client's address: the peer's, or, behind believed proxies, the last address of
/// `x-forwarded-for` that is not itself a believed proxy.
#[must_use]
pub fn address(peer: Option<IpAddr>, headers: &HeaderMap, proxies: &[Network]) -> Option<IpAddr> {
    let mut client = peer?.to_canonical();
    let believed = |address| proxies.iter().any(|network| network.contains(address));
    if !believed(client) {
        return Some(client);
    }
    let forwarded: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    for hop in forwarded.into_iter().rev() {
        // What cannot be read was not written by a believed proxy: stop at who sent it.
        let Ok(address) = hop.trim().parse::<IpAddr>() else { break };
        client = address.to_canonical();
        if !believed(client) {
            break;
        }
    }
    Some(client)
}

/// Whether a believed proxy says that the client came over TLS.
#[must_use]
pub fn forwarded_https(peer: Option<IpAddr>, headers: &HeaderMap, proxies: &[Network]) -> bool {
    let believed = peer.is_some_and(|peer| proxies.iter().any(|network| network.contains(peer)));
    believed
        && headers
            .get_all("x-forwarded-proto")
            .iter()
            .next_back()
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.rsplit(',').next())
            .is_some_and(|scheme| scheme.trim().eq_ignore_ascii_case("https"))
}

/// What an address is counted under: an IPv6 client owns its whole /64.
#[must_use]
pub fn limit_key(address: Option<IpAddr>) -> String {
    match address {
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => {
            let network = Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64));
            format!("{network}/64")
        }
        None => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", value.parse().unwrap());
        headers.insert("x-forwarded-proto", "https".parse().unwrap());
        headers
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_is_an_address_or_a_range() {
        let net = |text: &str| text.parse::<Network>();
        assert!(net("10.0.0.0/8").unwrap().contains(ip("10.255.0.1")));
        assert!(!net("10.0.0.0/8").unwrap().contains(ip("11.0.0.1")));
        assert!(net("10.0.0.1").unwrap().contains(ip("::ffff:10.0.0.1")));
        assert!(!net("10.0.0.1").unwrap().contains(ip("10.0.0.2")));
        assert!(net("0.0.0.0/0").unwrap().contains(ip("1.2.3.4")));
        assert!(net("fd00::/8").unwrap().contains(ip("fd12::1")));
        assert!(!net("::1").unwrap().contains(ip("::2")));
        for bad in ["", "a", "10.0.0.0/33", "::/129", "10.0.0.0/x", "10.0.0.0/"] {
            assert!(net(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn forwarded_addresses_are_believed_from_believed_proxies_only() {
        let proxies = ["10.0.0.0/8".parse().unwrap()];
        let headers = forwarded("203.0.113.9, 198.51.100.7, 10.1.1.1");
        assert_eq!(address(Some(ip("192.0.2.1")), &headers, &proxies), Some(ip("192.0.2.1")));
        assert_eq!(address(Some(ip("10.0.0.1")), &headers, &proxies), Some(ip("198.51.100.7")));
        assert_eq!(address(Some(ip("10.0.0.1")), &headers, &[]), Some(ip("10.0.0.1")));
        assert_eq!(
            address(Some(ip("10.0.0.1")), &forwarded("junk"), &proxies),
            Some(ip("10.0.0.1"))
        );
        assert!(forwarded_https(Some(ip("10.0.0.1")), &headers, &proxies));
        assert!(!forwarded_https(Some(ip("192.0.2.1")), &headers, &proxies));
    }

    #[test]
    fn a_client_of_ipv6_counts_as_its_network() {
        assert_eq!(limit_key(Some(ip("2001:db8::1"))), limit_key(Some(ip("2001:db8::2"))));
        assert_ne!(limit_key(Some(ip("2001:db8::1"))), limit_key(Some(ip("2001:db8:0:1::1"))));
        assert_ne!(limit_key(Some(ip("10.0.0.1"))), limit_key(Some(ip("10.0.0.2"))));
    }
}
