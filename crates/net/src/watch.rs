//! Watches the machine's rules: a firewall that is started or loaded anew after the node may flush the fence, or close
//! what was opened.

use std::io;
use std::sync::Weak;
use std::time::Duration;

use futures_util::FutureExt;
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use tokio::sync::Mutex;
use tokio::task::AbortHandle;

use crate::doors::changed_by;
use crate::error::whole;
use crate::fence::Fence;
use crate::foreign;
use crate::network::Changing;

/// The kernel's group for changes of nft's rules (`NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h).
const NFTABLES: u32 = 7;
/// How long rules may go on changing before they are looked at: who loads a firewall makes many changes.
const SETTLE: Duration = Duration::from_millis(500);
/// What is read of a message: only that there is one matters.
const SOME: usize = 4096;

/// Ends the watch when dropped.
#[derive(Debug)]
pub(crate) struct Watch(AbortHandle);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Begins to watch over `fence`. What is changed by the socket `own` is no news.
pub(crate) fn watch(fence: Fence, changing: Weak<Mutex<Changing>>, own: u32) -> io::Result<Watch> {
    let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    socket.socket_ref().add_membership(NFTABLES)?;
    let task = tokio::spawn(async move {
        let mut some = Vec::with_capacity(SOME);
        loop {
            // An error says that there were too many to keep: that is a change too.
            let told = socket.recv(&mut some).await;
            let by = changed_by(&some);
            some.clear();
            if told.is_ok() && by == Some(own) {
                continue;
            }
            tokio::time::sleep(SETTLE).await;
            while socket.recv(&mut some).now_or_never().is_some() {
                some.clear();
            }
            let Some(changing) = changing.upgrade() else {
                return;
            };
            let changing = changing.lock().await;
            if changing.closed {
                return;
            }
            mend(&fence, &changing).await;
        }
    });
    Ok(Watch(task.abort_handle()))
}

/// Puts the fence up again if it is gone, and opens what was closed.
async fn mend(fence: &Fence, changing: &Changing) {
    if !fence.stands().await {
        tracing::warn!("somebody has removed the node's nft table: it is put up again");
        if let Err(error) = fence.raise(&changing.gaps).await {
            tracing::error!(
                "containers are not fenced in, and names lead nowhere: {}",
                whole(&error)
            );
        }
    }
    match foreign::keep_open(fence).await {
        Ok(opened) => opened.iter().for_each(|chain| {
            tracing::warn!(
                "a firewall drops what it does not know (its {chain}): opened it for the bridges {}",
                fence.names.bridges
            );
        }),
        Err(error) => tracing::warn!("a firewall stays closed: {}", whole(&error)),
    }
}
