//! Makes one replica's namespace and plugs it into the bridge.
//!
//! On a thread of its own, which ends with the namespace that it entered: it first opens a netlink socket
//! outside, then enters the new namespace and opens another there, and so works on both ends at once.
//! No process is started; the whole takes a few milliseconds, most of them the kernel's.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::{LinkUnspec, LinkVeth};

use crate::claims::file;
use crate::link::{self, LOOPBACK, asked};
use crate::subnet::Subnet;
use crate::{Error, names, namespace};

/// What a replica's device is called inside.
const INSIDE: &str = "eth0";

/// All that is needed to plug one replica in.
#[derive(Debug, Clone)]
pub(crate) struct Plug {
    /// The file to bind the namespace to.
    pub(crate) netns: PathBuf,
    /// What the host's end is called.
    pub(crate) veth: String,
    /// What is noted on the host's end once all is done.
    pub(crate) alias: String,
    /// The bridge's index.
    pub(crate) bridge: u32,
    /// The replica's address.
    pub(crate) address: Ipv4Addr,
    /// The length of its subnet's prefix.
    pub(crate) prefix: u8,
    /// The bridge's address.
    pub(crate) gateway: Ipv4Addr,
    /// All that there is a way to; `None`: everything.
    pub(crate) reach: Option<Subnet>,
}

/// Does it. What was made stays if it fails: the caller removes it.
pub(crate) async fn plug(plug: Plug) -> Result<(), Error> {
    let (send, receive) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("netns".to_owned())
        .spawn(move || {
            // An error means that nobody waits for the answer any more.
            let _ = send.send(plug_here(&plug));
        })
        .map_err(Error::Thread)?;
    receive
        .await
        .unwrap_or_else(|_| Err(Error::Thread(std::io::Error::other("it ended early"))))
}

fn plug_here(plug: &Plug) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(Error::Thread)?;
    runtime.block_on(async {
        let outside = link::connect()?;
        namespace::enter_new(&plug.netns)?;
        let inside = link::connect()?;
        let own = std::fs::File::open(&plug.netns).map_err(file("open", &plug.netns))?;

        let peer = LinkUnspec::new_with_name(INSIDE)
            .address(names::mac(plug.address))
            .append_extra_attribute(LinkAttribute::NetNsFd(own.as_raw_fd()))
            .build();
        let pair = LinkVeth::new(&plug.veth, INSIDE)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .controller(plug.bridge)
            .up()
            .build();
        let what = format!("make the devices {} and {INSIDE}", plug.veth);
        let made = outside.link().add(pair).execute().await;
        made.map_err(asked(&what))?;
        // Before the other end is up, and with it this one.
        link::make_no_addresses(&outside, &plug.veth).await;

        link::set_up(&inside, LOOPBACK).await?;
        let device = link::find(&inside, INSIDE).await?;
        let index = device.map_or(0, |device| device.index);
        link::add_address(&inside, index, plug.address, plug.prefix).await?;
        // Not in the request that makes the pair: the kernel cannot switch an end on whose other is not there yet.
        link::set_up(&inside, index).await?;
        link::add_route(&inside, plug.gateway, plug.reach).await?;
        // Last: a device without it is half made, and removed at the next start.
        link::set_alias(&outside, &plug.veth, &plug.alias).await
    })
}
