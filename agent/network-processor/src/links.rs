//! Where links come from: a listener, and servers that are dialled for ever.

use crate::event::Event;
use crate::secrets::FileSecrets;
use anyhow::Context;
use config::AgentConfig;
use link::{Endpoint, IpRange, Link, Options, Role};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::task::JoinHandle;

/// Links that wait to be taken by the loop.
const LINKS_WAITING_MAX: usize = 16;

/// The listener and the dialling tasks.
pub(crate) struct Links {
    endpoint: Arc<Endpoint>,
    links: mpsc::Sender<Link>,
    dialled: HashMap<String, JoinHandle<()>>,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("dialled", &self.dialled.keys()).finish_non_exhaustive()
    }
}

impl Links {
    /// Listens and dials as the configuration says; every link becomes an event.
    pub(crate) async fn open(
        config: &AgentConfig,
        secrets: Arc<FileSecrets>,
        events: UnboundedSender<Event>,
    ) -> anyhow::Result<Links> {
        let options = Options { allow: ranges(&config.allow)?, ..Options::default() };
        let endpoint = Endpoint::new(Role::Agent, config.name.clone(), secrets, options)?;
        let (links, mut queue) = mpsc::channel::<Link>(LINKS_WAITING_MAX);
        if let Some(listen) = &config.listen {
            let listener = TcpListener::bind(listen)
                .await
                .with_context(|| format!("cannot listen on {listen} (\"listen\")"))?;
            let address = listener.local_addr()?;
            os::disk::replace(
                &config.data_root.join("listen.addr"),
                format!("{address}\n").as_bytes(),
                0o644,
            )
            .unwrap_or_else(|e| tracing::warn!("listen.addr could not be written: {e}"));
            tracing::info!(%address, "listening for servers");
            tokio::spawn(link::listen(endpoint.clone(), listener, links.clone()));
        }
        let mut opened = Links { endpoint, links, dialled: HashMap::new() };
        opened.set_connect(&config.connect)?;
        tokio::spawn(async move {
            while let Some(link) = queue.recv().await {
                if events.send(Event::Linked(Box::new(link))).is_err() {
                    return;
                }
            }
        });
        Ok(opened)
    }

    /// Takes over what the configuration says of addresses. Links in use stay.
    pub(crate) fn reload(&mut self, config: &AgentConfig) -> anyhow::Result<()> {
        self.endpoint.set_allow(ranges(&config.allow)?);
        self.set_connect(&config.connect)
    }

    /// These servers are dialled, and no others any more.
    fn set_connect(&mut self, connect: &[String]) -> anyhow::Result<()> {
        for address in connect {
            link::split_address(address).context("\"connect\"")?;
        }
        self.dialled.retain(|address, task| {
            let stays = connect.contains(address);
            if !stays {
                task.abort();
            }
            stays
        });
        for address in connect {
            if !self.dialled.contains_key(address) {
                let dialling =
                    link::keep_dialled(self.endpoint.clone(), address.clone(), None, self.links.clone());
                self.dialled.insert(address.clone(), tokio::spawn(dialling));
            }
        }
        Ok(())
    }
}

fn ranges(allow: &[String]) -> anyhow::Result<Vec<IpRange>> {
    allow.iter().map(|range| range.parse()).collect::<Result<_, _>>().context("\"allow\"")
}
