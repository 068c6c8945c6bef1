//! A node of the town: a network namespace and one thread that lives in it.

use std::fs::File;
use std::future::Future;
use std::os::fd::AsFd;
use std::process::Command;
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::netns::{feed, run};

/// A network namespace with a thread that has entered it and runs a tokio runtime; sockets made by tasks spawned here
/// live there. Dropping it ends the thread and removes the namespace's name.
#[derive(Debug)]
pub struct Node {
    name: String,
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    /// Makes the namespace, brings its loopback up and starts the thread.
    pub(crate) fn raise(name: &str) -> Result<Self> {
        run("ip", &["netns", "add", name])?;
        let (stop, stopped) = oneshot::channel::<()>();
        let (send, receive) = std::sync::mpsc::channel();
        let inside = name.to_owned();
        let thread = std::thread::Builder::new().name(format!("node-{name}")).spawn(move || {
            let built = enter(&inside).and_then(|()| {
                tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Into::into)
            });
            match built {
                Ok(runtime) => {
                    let _ = send.send(Ok(runtime.handle().clone()));
                    let _ = runtime.block_on(stopped);
                    runtime.shutdown_background();
                }
                Err(error) => drop(send.send(Err(error))),
            }
        })?;
        let handle = receive.recv().map_err(|_| anyhow!("the thread of node `{name}` ended"))??;
        Ok(Self { name: name.to_owned(), handle, stop: Some(stop), thread: Some(thread) })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where tasks that open sockets in this namespace are spawned.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs a future on the node's thread and waits for it. Must not be called from a runtime's thread.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Result<T> {
        let (send, receive) = std::sync::mpsc::channel();
        self.handle.spawn(async move {
            let _ = send.send(work.await);
        });
        receive.recv().map_err(|_| anyhow!("node `{}` ended before its work was done", self.name))
    }

    /// A command that will run inside this namespace.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs lines of `ip` in this namespace, all in one process.
    pub(crate) fn ip(&self, lines: &str) -> Result<()> {
        feed("ip", &["-n", &self.name, "-batch", "-"], lines)
            .map(drop)
            .with_context(|| format!("in node {}", self.name))
    }

    /// Loads an nftables file.
    pub(crate) fn nft(&self, rules: &str) -> Result<()> {
        let net = format!("--net=/run/netns/{}", self.name);
        feed("nsenter", &[&net, "nft", "-f", "-"], rules)
            .map(drop)
            .with_context(|| format!("in node {}", self.name))
    }

    /// Sets sysctls below `/proc/sys/net`, written as `ipv4/ip_forward`.
    pub(crate) fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        let settings: Vec<(String, String)> =
            settings.iter().map(|(k, v)| (format!("/proc/sys/net/{k}"), (*v).to_owned())).collect();
        self.run(async move {
            for (path, value) in &settings {
                std::fs::write(path, value).with_context(|| format!("cannot write {path}"))?;
            }
            Ok(())
        })?
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = run("ip", &["netns", "del", &self.name]);
    }
}

/// Moves the calling thread into a named network namespace.
pub(crate) fn enter(name: &str) -> Result<()> {
    let file = File::open(format!("/run/netns/{name}")).with_context(|| format!("no namespace `{name}`"))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("cannot enter namespace `{name}`"))
}
