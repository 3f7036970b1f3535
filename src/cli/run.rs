//! `crossdock run`

use super::connect::{self, Bootstrap, RegistryUrl};
use super::shared;
use crate::codec::Codec;
use crate::config::Configuration;
use crate::contract::{Catalogue, topic};
use crate::log::{GivenUp, Log};
use crate::pipeline::{Connector, ConnectorDescriptor, Verdict};
use crate::processors::Registered;
use crate::runtime::Budget;
use crate::runtime::service::{self, Condition, Job, Service};
use crate::runtime::{ProcessorTask, SinkTask, SourceTask, TaskSettings};
use crate::telemetry::Telemetry;
use crate::{processors, replay, topics};
use anyhow::{Context, bail};
use axum::http::StatusCode;
use axum::routing::get;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Instances of one set of names on a host, at most.
const SLOTS_MAX: usize = 1_000;
/// How often tasks are looked at that cannot go on.
const HEALTH_INTERVAL: Duration = Duration::from_millis(200);
/// Tasks that have not ended by then are left behind, so that the process ends within ten seconds.
const STOP_TIME_MAX: Duration = Duration::from_secs(9);

/// Calls of the log that were given up and still hang. Each keeps its client, with threads and buffers;
/// a new process has none.
const CALLS_HANGING_MAX: u64 = 64;

/// Arguments of `crossdock run`.
#[derive(clap::Args)]
pub struct Args {
    /// Connectors of the configuration and processors, by name.
    #[arg(required = true)]
    names: Vec<String>,
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(flatten)]
    registry: RegistryUrl,
    /// Name of this instance: stable over restarts, unique among those that run. By default the
    /// first that is free in the state folder.
    #[arg(long, env = "CROSSDOCK_INSTANCE")]
    instance: Option<String>,
    /// Address for metrics and health. By default a free port of the loopback interface.
    #[arg(long, env = "CROSSDOCK_LISTEN")]
    listen: Option<String>,
    /// Folder for checkpoints.
    #[arg(long, env = "CROSSDOCK_STATE")]
    state: Option<PathBuf>,
    /// Tasks of each processor in this process.
    #[arg(long, env = "CROSSDOCK_TASKS")]
    tasks: Option<u32>,
    /// First part of group and transactional ids; one for a deployment.
    #[arg(long, env = "CROSSDOCK_APPLICATION", default_value = "crossdock")]
    application: String,
    /// A dead instance's partitions move after this long.
    #[arg(long, env = "CROSSDOCK_SESSION_TIMEOUT_MS", default_value_t = 10_000)]
    session_timeout_ms: u64,
}

/// What is needed to make a task.
#[derive(Clone)]
struct Ports {
    log: Arc<dyn Log>,
    codec: Arc<Codec>,
    telemetry: Arc<Telemetry>,
    settings: TaskSettings,
}

/// Runs until it is told to stop, then finishes or aborts what is in hand. Exit code 0 where it was
/// told to stop, also where a broker that does not answer kept a task from ending; 1 where it ends by
/// itself or by a defect.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    shared::log_output("info,librdkafka=warn");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    // Heard from the first moment: told to stop while still starting, there is nothing in hand.
    let started = Arc::new(AtomicBool::new(false));
    let (told, mut hear) = tokio::sync::watch::channel(false);
    let begun = started.clone();
    runtime.spawn(async move {
        if shared::told_to_stop().await.is_ok() && !begun.load(Ordering::SeqCst) {
            std::process::exit(0);
        }
        told.send_replace(true);
    });
    let configuration = args.bootstrap.configuration()?;
    let chosen = choose(&args.names, &configuration)?;
    let log = connect::configured_log(&args.bootstrap, &configuration)?;
    check_topics(&chosen, log.as_ref(), args.bootstrap.config.as_deref())?;
    let registry = connect::configured_registry(&args.registry, &configuration, &log)?;
    let codec = shared::codec(registry);
    let connectors = chosen.iter().filter_map(|task| match task {
        Chosen::Connector(configured) => Some((&*configured.name, &configured.connector)),
        Chosen::Processor(_) => None,
    });
    connect::entrust(connectors, &configuration, &log, &codec)?;
    let state = args
        .state
        .clone()
        .or_else(|| configuration.state.clone())
        .unwrap_or_else(default_state);
    let (instance, _lock) = slot(
        args.instance
            .clone()
            .or_else(|| configuration.instance.clone()),
        &state,
        &args,
    )?;
    let telemetry = Arc::new(Telemetry::new());
    let settings = TaskSettings {
        application: args.application.clone(),
        state_folder: Some(state.join(&instance)),
        session_timeout: Duration::from_millis(args.session_timeout_ms),
        ..TaskSettings::new(instance.clone(), 0)
    };
    let ports = Ports {
        log: log.clone(),
        codec,
        telemetry: telemetry.clone(),
        settings,
    };
    let mut service = Service::new(telemetry.clone());
    let tasks = args.tasks.or(configuration.tasks).unwrap_or(1).max(1);
    started.store(true, Ordering::SeqCst);
    for task in chosen {
        start(task, &ports, tasks, &mut service)?;
    }
    let listen = args.listen.clone().or_else(|| configuration.listen.clone());
    let listener = runtime.block_on(bind(listen.as_deref()))?;
    let address = listener.local_addr()?;
    tracing::info!(instance, listen = %address, state = %state.join(&instance).display(), log = log.address(), names = ?args.names, "running");
    let health = service.health();
    let ended = service.health();
    let watched = telemetry.clone();
    let stop = service.stop();
    runtime.spawn(async move {
        let live = health.clone();
        let ready = health.clone();
        let app = axum::Router::new()
            .route("/metrics", get(move || async move { telemetry.render() }))
            .route(
                "/health/live",
                get(move || async move { answer(live.is_live(), &live) }),
            )
            .route(
                "/health/ready",
                get(move || async move { answer(ready.is_ready(), &ready) }),
            );
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "metrics and health are no longer served");
        }
    });
    let lost = runtime.block_on(async {
        loop {
            tokio::select! {
                // The channel's other end lives as long as the runtime.
                _ = hear.wait_for(|told| *told) => return None,
                () = tokio::time::sleep(HEALTH_INTERVAL) => {
                    let calls = log.given_up();
                    watched.given_up(calls.ever, calls.hanging);
                    if let Some(why) = ended.lost_cause().or_else(|| burden(calls)) {
                        return Some(why);
                    }
                }
            }
        }
    });
    match &lost {
        Some(why) => tracing::error!(cause = why, "this instance ends"),
        None => tracing::info!("stopping: what is in hand is finished or aborted"),
    }
    stop.now();
    let end = service.join(STOP_TIME_MAX);
    if !end.left_behind.is_empty() {
        tracing::warn!(tasks = ?end.left_behind, "left behind in a call that does not come back; what they had in hand is not committed");
    }
    tracing::info!("stopped");
    Ok(if end.panicked.is_empty() && lost.is_none() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Why the process must end although its tasks could go on: what was given up takes more than it may.
fn burden(calls: GivenUp) -> Option<String> {
    (calls.hanging >= CALLS_HANGING_MAX).then(|| {
        format!(
            "{} calls that tell a group's coordinator of offsets hang, each with a thread and a client, and no more than \
             {CALLS_HANGING_MAX} may; start this instance again, and see whether the brokers that lead \
             __consumer_offsets can be reached from here",
            calls.hanging
        )
    })
}

/// Something to run.
enum Chosen {
    Processor(&'static Registered),
    Connector(Configured),
}

/// A connector of the configuration.
struct Configured {
    name: String,
    descriptor: &'static ConnectorDescriptor,
    connector: Arc<dyn Connector>,
    budget: Option<Budget>,
}

/// What the names stand for; connectors are made at once, so that everything that is wrong is told
/// before anything starts.
fn choose(names: &[String], configuration: &Configuration) -> anyhow::Result<Vec<Chosen>> {
    let (mut chosen, mut wrong) = (Vec::new(), Vec::new());
    for name in names {
        let entry = configuration.connectors.iter().find(|c| c.name == *name);
        match (processors::find(name), entry) {
            (Some(_), Some(_)) => wrong.push(format!(
                "the configuration gives a connector the name of the processor {name}; give it another"
            )),
            (Some(processor), None) => chosen.push(Chosen::Processor(processor)),
            (None, Some(entry)) => match shared::build(entry) {
                Ok((descriptor, connector)) => {
                    let budget = entry.budget.map(|b| Budget {
                        calls_per_second: b.calls_per_second,
                        burst: b.burst.map_or(b.calls_per_second, f64::from),
                    });
                    chosen.push(Chosen::Connector(Configured {
                        name: name.clone(),
                        descriptor,
                        connector,
                        budget,
                    }));
                }
                Err(error) => wrong.push(format!("{error:#}")),
            },
            (None, None) => {
                let known = processors::ALL.iter().map(|p| p.descriptor.name);
                let configured = configuration.connectors.iter().map(|c| &*c.name);
                let known: Vec<&str> = known.chain(configured).collect();
                wrong.push(format!(
                    "{name} is neither a processor nor a connector of the configuration; name one of {}, or give the file that has it with --config",
                    known.join(", ")
                ));
            }
        }
    }
    match wrong.is_empty() {
        true => Ok(chosen),
        false => bail!("{}", wrong.join("\n")),
    }
}

/// Tells every topic that is missing or laid out otherwise than it must be.
fn check_topics(chosen: &[Chosen], log: &dyn Log, config: Option<&Path>) -> anyhow::Result<()> {
    let catalogue = Catalogue::compiled();
    let mut needs = Vec::new();
    for task in chosen {
        needs.extend(match task {
            Chosen::Processor(p) => topics::needs_of(p.descriptor, catalogue),
            Chosen::Connector(c) => topics::needs_of_connector(&c.name, c.descriptor, catalogue),
        });
    }
    topics::verify(log, &needs)?.map_err(|mut missing| {
        if let Some(config) = config {
            missing.command += &format!(" --config {}", config.display());
        }
        anyhow::anyhow!("{missing}")
    })
}

fn start(chosen: Chosen, ports: &Ports, tasks: u32, service: &mut Service) -> anyhow::Result<()> {
    let catalogue = Catalogue::compiled();
    let Configured {
        name,
        descriptor,
        connector,
        budget,
    } = match chosen {
        Chosen::Processor(registered) => {
            return start_processor(registered, ports, tasks, service);
        }
        Chosen::Connector(configured) => configured,
    };
    let (accepts, emits) = (descriptor.accepts, descriptor.emits);
    ports.telemetry.declare(&name);
    if let Some(sink) = connector.sink() {
        let mut written = written(
            catalogue,
            &name,
            &[
                &catalogue.receipt_topic(&name),
                &catalogue.park_topic(&name),
            ],
        );
        let sink = match accepts.contains(&topic::RECON_CORRECTION) {
            true => {
                written.push(topic::OPS_AUDIT.to_owned());
                let target = replay::Target {
                    log: ports.log.clone(),
                    codec: ports.codec.clone(),
                    catalogue,
                    application: ports.settings.application.clone(),
                    name: name.clone(),
                    topics: accepts.iter().map(|t| (*t).to_owned()).collect(),
                    sink,
                    writer: format!("{}-replay", ports.settings.slot),
                };
                replay::carrying_out(target, service::clock())
            }
            false => sink,
        };
        prepare(&ports.codec, &written)?;
        let job = Job {
            label: ports.settings.label(&name),
            reader: &name,
        };
        let (mut ports, name) = (ports.clone(), name.clone());
        ports.settings.budget = budget;
        service.sink(job, move || {
            ports.codec.prepare(&names(&written))?;
            SinkTask::new(
                &name,
                accepts,
                sink.clone(),
                ports.log.clone(),
                service::clock(),
                ports.codec.clone(),
                catalogue,
                ports.telemetry.clone(),
                ports.settings.clone(),
            )
        })?;
    }
    if connector.source().is_some() {
        let mut written = written(catalogue, &name, emits);
        written.extend([topic::SOURCE_CURSOR, topic::OPS_HEARTBEAT].map(str::to_owned));
        if descriptor.inbox {
            written.push(catalogue.inbox_topic(&name));
        }
        prepare(&ports.codec, &written)?;
        let job = Job {
            label: ports.settings.label(&format!("{name}.source")),
            reader: &name,
        };
        let (ports, name) = (ports.clone(), name.clone());
        service.source(job, move || {
            ports.codec.prepare(&names(&written))?;
            source_task(connector.as_ref(), &name, &ports, catalogue)
        })?;
    }
    Ok(())
}

/// Every topic that a reader writes events to: its outputs, its outcomes, its dead letters.
fn written(catalogue: &Catalogue, reader: &str, outputs: &[&str]) -> Vec<String> {
    let mut topics: Vec<String> = outputs.iter().map(|t| (*t).to_owned()).collect();
    topics.push(topic::OPS_DISPOSITION.to_owned());
    topics.push(catalogue.dead_letter_topic(reader));
    topics
}

fn names(topics: &[String]) -> Vec<&str> {
    topics.iter().map(String::as_str).collect()
}

/// Looks before anything starts whether the registry has what will be written. A registry that does
/// not answer is waited for, by the task itself.
fn prepare(codec: &Codec, topics: &[String]) -> anyhow::Result<()> {
    match codec.prepare(&names(topics)) {
        Err(fault) if matches!(fault.verdict, Verdict::Retry { .. }) => {
            tracing::warn!(%fault, "will wait for it");
            Ok(())
        }
        other => Ok(other?),
    }
}

fn start_processor(
    registered: &'static Registered,
    ports: &Ports,
    tasks: u32,
    service: &mut Service,
) -> anyhow::Result<()> {
    let (catalogue, name) = (Catalogue::compiled(), registered.descriptor.name);
    let written = written(catalogue, name, registered.descriptor.outputs);
    prepare(&ports.codec, &written)?;
    ports.telemetry.declare(name);
    for task in 0..tasks {
        let (ports, written) = (ports.clone(), written.clone());
        let settings = TaskSettings {
            task,
            ..ports.settings.clone()
        };
        let job = Job {
            label: settings.label(name),
            reader: name,
        };
        service.processor(job, move || {
            ports.codec.prepare(&names(&written))?;
            let settings = settings.clone();
            ProcessorTask::new(
                (registered.make)(),
                ports.log.clone(),
                service::clock(),
                ports.codec.clone(),
                catalogue,
                ports.telemetry.clone(),
                settings,
            )
        })?;
    }
    Ok(())
}

fn source_task(
    connector: &dyn Connector,
    name: &str,
    ports: &Ports,
    catalogue: &Catalogue,
) -> Result<SourceTask, crate::pipeline::Fault> {
    use crate::pipeline::{Code, Fault, Stage};
    let Some(source) = connector.source() else {
        return Err(Fault::halt(
            Stage::Read,
            Code::Bug,
            format!("{name} has lost its source"),
        ));
    };
    SourceTask::new(
        name,
        source,
        ports.log.clone(),
        service::clock(),
        ports.codec.clone(),
        catalogue,
        ports.telemetry.clone(),
        ports.settings.clone(),
    )
}

fn default_state() -> PathBuf {
    let base = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".local/state"));
    base.or_else(home)
        .unwrap_or_else(std::env::temp_dir)
        .join("crossdock")
}

/// The name of this instance, and the lock that keeps it: given, or the first that is free.
fn slot(given: Option<String>, state: &Path, args: &Args) -> anyhow::Result<(String, File)> {
    let folder = state.join("slots");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("the state folder {} cannot be made", folder.display()))?;
    let base = format!("{}-{}", args.application, args.names.join("+"));
    let names: Vec<String> = match given {
        Some(name) => vec![name],
        None => (0..SLOTS_MAX).map(|n| format!("{base}-{n}")).collect(),
    };
    for name in &names {
        let file = File::create(folder.join(format!("{name}.lock")))?;
        if file.try_lock().is_ok() {
            return Ok((name.clone(), file));
        }
    }
    bail!(
        "an instance named {} runs on this host already; give another with --instance",
        names[0]
    )
}

async fn bind(listen: Option<&str>) -> anyhow::Result<tokio::net::TcpListener> {
    let address = listen.unwrap_or("127.0.0.1:0");
    tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("{address} is taken; give another with --listen"))
}

fn answer(good: bool, health: &service::Health) -> (StatusCode, String) {
    let lines = health
        .conditions()
        .into_iter()
        .map(|(task, condition)| match condition {
            Condition::Starting => format!("{task}: starting"),
            Condition::Working => format!("{task}: working"),
            Condition::Retrying(why) => format!("{task}: trying again: {why}"),
            Condition::Halted(why) => format!("{task}: halted: {why}"),
            Condition::Replaced(why) => format!("{task}: given up: {why}"),
            Condition::Dead => format!("{task}: dead"),
            Condition::Hanging => format!("{task}: hangs"),
            Condition::Ended => format!("{task}: ended"),
        });
    let status = if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, lines.collect::<Vec<_>>().join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_calls_that_hang_end_the_process_with_words_and_those_that_came_back_do_not() {
        let calls = |ever, hanging| burden(GivenUp { ever, hanging });
        assert_eq!(calls(0, 0), None);
        assert_eq!(calls(1_000, CALLS_HANGING_MAX - 1), None);
        let words = calls(CALLS_HANGING_MAX, CALLS_HANGING_MAX).expect("it ends");
        assert!(words.contains("64 calls"), "{words}");
        assert!(words.contains("__consumer_offsets"), "{words}");
    }
}
