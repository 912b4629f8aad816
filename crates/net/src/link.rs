//! Requests to the kernel's network, each named for what it does.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt;
use nix::errno::Errno;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteScope, RouteType,
};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, RouteMessageBuilder};

use crate::Error;
use crate::subnet::Subnet;

/// Loopback's index in every network namespace.
pub(crate) const LOOPBACK: u32 = 1;
/// The routing table of the machine's own addresses (rtnetlink(7)).
const RT_TABLE_LOCAL: u32 = 255;

/// A connection to the network namespace of the calling thread, now and for ever. Its task ends with the handle.
pub(crate) fn connect() -> Result<Handle, Error> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Socket)?;
    tokio::spawn(connection);
    Ok(handle)
}

/// Says what the kernel was asked to do.
pub(crate) fn asked(what: &str) -> impl FnOnce(rtnetlink::Error) -> Error {
    let what = what.to_owned();
    move |source| Error::Netlink { what, source }
}

/// A device, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// What was noted on it.
    pub(crate) alias: String,
    /// The bridge that it is a port of; 0: none.
    pub(crate) bridge: u32,
}

/// All devices.
pub(crate) async fn devices(handle: &Handle) -> Result<Vec<Device>, Error> {
    let links: Vec<LinkMessage> = handle
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(asked("list the network devices"))?;
    Ok(links.into_iter().map(device).collect())
}

fn device(link: LinkMessage) -> Device {
    let mut device = Device {
        index: link.header.index,
        name: String::new(),
        alias: String::new(),
        bridge: 0,
    };
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name = name,
            LinkAttribute::IfAlias(alias) => device.alias = alias,
            LinkAttribute::Controller(index) => device.bridge = index,
            _ => {}
        }
    }
    device
}

/// The device called `name`, if there is one.
pub(crate) async fn find(handle: &Handle, name: &str) -> Result<Option<Device>, Error> {
    let found = handle.link().get().match_name(name).execute();
    let mut found = std::pin::pin!(found);
    match found.try_next().await {
        Ok(link) => Ok(link.map(device)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(asked(&format!("look for the device {name}"))(error)),
    }
}

/// Makes a bridge that is up, and gives it its address.
pub(crate) async fn make_bridge(
    handle: &Handle,
    name: &str,
    mac: Vec<u8>,
    address: Ipv4Addr,
    prefix: u8,
) -> Result<u32, Error> {
    let what = format!("make the bridge {name}");
    let bridge = LinkBridge::new(name).address(mac).up().build();
    handle
        .link()
        .add(bridge)
        .execute()
        .await
        .map_err(asked(&what))?;
    let index = find(handle, name).await?.map_or(0, |device| device.index);
    add_address(handle, index, address, prefix).await?;
    Ok(index)
}

/// Makes `range` the machine's own: what comes for one of its addresses is delivered here, and not sent on.
pub(crate) async fn make_local(handle: &Handle, range: Subnet) -> Result<(), Error> {
    let add = handle.route().add(local_route(range)).replace().execute();
    add.await
        .map_err(asked(&format!("make {range} local to this machine")))
}

/// Takes that back; a range that is not local is fine.
pub(crate) async fn unmake_local(handle: &Handle, range: Subnet) -> Result<(), Error> {
    match handle.route().del(local_route(range)).execute().await {
        Err(error) if !is(&error, Errno::ESRCH) => {
            Err(asked(&format!("remove the local route to {range}"))(error))
        }
        _ => Ok(()),
    }
}

fn local_route(range: Subnet) -> RouteMessage {
    let (address, prefix) = range.parts();
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(address, prefix)
        .output_interface(LOOPBACK)
        .table_id(RT_TABLE_LOCAL)
        .scope(RouteScope::Host)
        .kind(RouteType::Local)
        .build()
}

/// Gives a device an address, and its subnet a route.
pub(crate) async fn add_address(
    handle: &Handle,
    index: u32,
    address: Ipv4Addr,
    prefix: u8,
) -> Result<(), Error> {
    let request = handle.address().add(index, IpAddr::V4(address), prefix);
    let result = request.replace().execute().await;
    result.map_err(asked(&format!("give a device the address {address}")))
}

/// Switches a device on.
pub(crate) async fn set_up(handle: &Handle, index: u32) -> Result<(), Error> {
    let link = LinkUnspec::new_with_index(index).up().build();
    let result = handle.link().set(link).execute().await;
    result.map_err(asked("switch a network device on"))
}

/// Keeps the kernel from giving a device an IPv6 address of its own once it is up. It is of no use on a bridge's port, and for each
/// that goes the kernel looks through all connections that it tracks, for those to be masqueraded by it.
pub(crate) async fn make_no_addresses(handle: &Handle, name: &str) {
    let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let spec = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![none])]);
    let link = LinkUnspec::new_with_name(name)
        .append_extra_attribute(spec)
        .build();
    // A kernel without IPv6 refuses: it makes none.
    let _ = handle.link().set(link).execute().await;
}

/// Notes `alias` on a device.
pub(crate) async fn set_alias(handle: &Handle, name: &str, alias: &str) -> Result<(), Error> {
    let link = LinkUnspec::new_with_name(name).alias(alias).build();
    let result = handle.link().set(link).execute().await;
    result.map_err(asked(&format!("note an alias on the device {name}")))
}

/// Leads what goes to `reach` through `gateway`; `None`: all that no other route leads elsewhere.
pub(crate) async fn add_route(
    handle: &Handle,
    gateway: Ipv4Addr,
    reach: Option<Subnet>,
) -> Result<(), Error> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway);
    let route = match reach.map(Subnet::parts) {
        Some((address, prefix)) => route.destination_prefix(address, prefix),
        None => route,
    };
    let result = handle.route().add(route.build()).execute().await;
    result.map_err(asked(&format!("add a route through {gateway}")))
}

/// Removes the device called `name` (and its peer, and its addresses); one that is missing is fine.
///
/// On a thread and a connection of its own: the kernel takes some 40 ms for it, in which others are not to wait.
pub(crate) async fn remove(name: &str) -> Result<(), Error> {
    let name = name.to_owned();
    let removed = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(Error::Thread)?;
        runtime.block_on(async { remove_here(&connect()?, &name).await })
    });
    removed
        .await
        .unwrap_or_else(|error| Err(Error::Thread(std::io::Error::other(error))))
}

async fn remove_here(handle: &Handle, name: &str) -> Result<(), Error> {
    let Some(device) = find(handle, name).await? else {
        return Ok(());
    };
    match handle.link().del(device.index).execute().await {
        Err(error) if !is_missing(&error) => {
            Err(asked(&format!("remove the device {name}"))(error))
        }
        _ => Ok(()),
    }
}

/// The addresses of the device `index`.
pub(crate) async fn addresses(handle: &Handle, index: u32) -> Result<Vec<(Ipv4Addr, u8)>, Error> {
    let all = all_addresses(handle).await?;
    let own = all.into_iter().filter(|(device, ..)| *device == index);
    Ok(own.map(|(_, address, prefix)| (address, prefix)).collect())
}

async fn all_addresses(handle: &Handle) -> Result<Vec<(u32, Ipv4Addr, u8)>, Error> {
    let messages: Vec<_> = handle
        .address()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(asked("list the addresses"))?;
    let mut all = Vec::new();
    for message in messages {
        for attribute in &message.attributes {
            if let AddressAttribute::Address(IpAddr::V4(address))
            | AddressAttribute::Local(IpAddr::V4(address)) = attribute
            {
                all.push((message.header.index, *address, message.header.prefix_len));
            }
        }
    }
    Ok(all)
}

/// All IPv4 ranges that the machine has an address in or a route to, but the default route, and the local route to
/// the range `own`.
pub(crate) async fn ranges_in_use(
    handle: &Handle,
    own: Option<Subnet>,
) -> Result<Vec<Subnet>, Error> {
    let addresses = all_addresses(handle).await?.into_iter();
    let mut all: Vec<Subnet> = addresses
        .map(|(_, address, prefix)| Subnet::of(address, prefix))
        .collect();
    let every = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let routes: Vec<_> = handle
        .route()
        .get(every)
        .execute()
        .try_collect()
        .await
        .map_err(asked("list the routes"))?;
    for route in routes {
        let prefix = route.header.destination_prefix_length;
        let local = route.header.kind == RouteType::Local;
        for attribute in &route.attributes {
            if let RouteAttribute::Destination(RouteAddress::Inet(address)) = attribute
                && prefix > 0
            {
                let range = Subnet::of(*address, prefix);
                if !(local && Some(range) == own) {
                    all.push(range);
                }
            }
        }
    }
    Ok(all)
}

/// Whether the kernel said that there is no such device (ENODEV).
fn is_missing(error: &rtnetlink::Error) -> bool {
    is(error, Errno::ENODEV)
}

fn is(error: &rtnetlink::Error, errno: Errno) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -(errno as i32))
}
