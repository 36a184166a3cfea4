//! How a supervisor comes to be: its threads, its guardian, what it listens to.

use super::checkpoint::Costs;
use super::fingerprint::Hasher;
use super::inbox::{Doorbell, News};
use super::keeper::Keeper;
use super::lookup::Lookups;
use super::pieces::Pieces;
use super::run::Run;
use super::underway::Held;
use super::waiting::Waiting;
use super::{ALLOWANCE, OPEN_WRITE_BOUND, Supervisor, filter};
use crate::cli::Effects;
use crate::config::Config;
use crate::control::{Place, Server};
use crate::events::Events;
use crate::guardian::Guardian;
use crate::input::Input;
use crate::keys::Keys;
use crate::messages::Messages;
use crate::output::{Output, Teller, reader};
use anyhow::Context as _;
use journal::{Journal, NewFolder};
use snapshot::Inherited;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use timeline::{Limits, Timeline};
use tracee::{SpawnError, Tid, Tracer};

/// Brings all parts together, runs the guest, and leaves nothing behind; the status
/// to exit with.
///
/// # Errors
///
/// Forkmon's own failures.
pub(super) fn supervise(
    config: &Config,
    messages: &mut Messages,
    events: &mut Events,
) -> anyhow::Result<u8> {
    tracee::become_subreaper().context("cannot become the reaper of the guest's orphans")?;
    let mut inherited = Inherited::of_this_process().context("cannot list the open files")?;
    let mut tracer = Tracer::new();
    let guardian = Guardian::start().context("cannot start the guardian process")?;
    let keeper = Keeper::new(guardian);
    let bell = attach(&mut tracer, keeper.process())?;
    let keeper = Arc::new(Mutex::new(keeper));
    let (bell, inbox) = Doorbell::new(bell);
    bell.listen_for_signals().context("cannot handle signals")?;
    let input = start_input(config, &bell, &mut inherited)?;
    let output = start_output(config, messages, &bell, &mut inherited)?;
    let watcher = if config.once {
        None
    } else {
        Some(Arc::new(start_watching(config, &bell)?))
    };
    let quiet = watcher.clone();
    let hasher = Hasher::start(move || {
        // Now that the guest has done reading for a while: what is not in the
        // queue yet comes after those reads.
        if let Some(watcher) = &quiet {
            watcher.drained_at();
        }
    })
    .context("cannot start a thread")?;
    let for_stores = Arc::clone(&keeper);
    let mut journal = Journal::new(journal::Options {
        undo: config.effects == Effects::Undo,
        limit: config.journal_limit,
        lasting_places: config
            .state_dir
            .iter()
            .map(|folder| folder.join("forkmon"))
            .collect(),
        inherited: inherited_outputs(config).into_iter().collect(),
        on_folder: Box::new(move |folder| {
            let mut keeper = for_stores.lock().unwrap_or_else(PoisonError::into_inner);
            match folder {
                NewFolder::Store(path) => keeper.note_path(path),
                NewFolder::Keep(path) => keeper.note_keep(path),
            }
        }),
        ..journal::Options::default()
    });
    let beginning = journal.mark();
    let inherited = Arc::new(inherited);
    let server = start_server(config, messages, &bell, &keeper)?;
    let keys = start_keys(config, messages, &bell, &keeper)?;
    let mut supervisor = Supervisor {
        tracer,
        filter: filter::filter(output.is_terminal()),
        identity_filter: filter::identity_filter(),
        timeline: Timeline::new(Limits {
            share: config.budget,
            max_checkpoints: config.max_checkpoints,
            max_memory: config.max_memory,
            allowance: ALLOWANCE,
        }),
        journal,
        beginning,
        watcher,
        hasher,
        lookups: Lookups::default(),
        last_access: HashMap::new(),
        pieces: Pieces::default(),
        resaved: BTreeSet::new(),
        restored: HashMap::new(),
        stored: BTreeMap::new(),
        next_checkpoint: 0,
        costs: Costs::default(),
        run: Run::not_started(0),
        next_run: 0,
        quitting: None,
        is_born_late: false,
        is_hurried: false,
        finished: None,
        asked_with: 0,
        deadline: 0,
        deadline_passed: false,
        dropping: false,
        later: Vec::new(),
        held: Held::default(),
        asked_meanwhile: Vec::new(),
        wanted: Vec::new(),
        waiting: Waiting::default(),
        rung_meanwhile: false,
        lost_to_effects: false,
        inherited,
        outputs: inherited_outputs(config),
        input,
        output,
        untold_exit: None,
        bell,
        inbox,
        keeper,
        keys,
        config,
        messages,
        events,
    };
    if !config.once {
        supervisor.warn_of_missing();
    }
    let outcome = supervisor.start().and_then(|()| supervisor.until_the_end());
    supervisor.clean_up();
    supervisor.finish_output();
    drop(supervisor);
    // Nobody is left who could answer what is asked.
    drop(server);
    outcome
}

/// Listens to `forkmon ctl`. A socket that was named must be had; without the usual
/// one forkmon works, too.
fn start_server(
    config: &Config,
    messages: &mut Messages,
    bell: &Doorbell,
    keeper: &Mutex<Keeper>,
) -> anyhow::Result<Option<Server>> {
    if config.once {
        return Ok(None);
    }
    let delivering = bell.clone();
    let server = Place::of(config).and_then(|place| {
        let mut keeper = keeper.lock().unwrap_or_else(PoisonError::into_inner);
        keeper.note_path(place.path());
        drop(keeper);
        Server::start(place, move |asked| {
            delivering.send(News::Control(asked));
        })
    });
    match server {
        Ok(server) => Ok(Some(server)),
        Err(error) if config.control.is_some() => Err(error),
        Err(error) => {
            let text = format!("forkmon ctl will not find this one: {error:#}");
            messages.warning_once("control", &text);
            Ok(None)
        }
    }
}

/// Makes the guest's standard input.
fn start_input(
    config: &Config,
    bell: &Doorbell,
    inherited: &mut Inherited,
) -> anyhow::Result<Input> {
    let delivering = bell.clone();
    let input = Input::start(config.stdin, move |error| {
        delivering.send(News::InputLost(error.to_string()));
    })?;
    if let Some(end) = input.guest_end() {
        inherited
            .add(end)
            .context("cannot look at the guest's input")?;
    }
    Ok(input)
}

/// Makes the guest's standard output and standard error, and passes the messages
/// through where they stand between the guest's lines.
fn start_output(
    config: &Config,
    messages: &mut Messages,
    bell: &Doorbell,
    inherited: &mut Inherited,
) -> anyhow::Result<Output> {
    let delivering = bell.clone();
    let teller: Teller = Arc::new(move |index, told| {
        delivering.send(News::Output(index, told));
    });
    let output = Output::start(config.output, &teller)?;
    for end in output.guest_ends().into_iter().flatten() {
        inherited
            .add(end)
            .context("cannot look at the guest's output")?;
    }
    if !config.once {
        let delivering = bell.clone();
        reader::watch(move || delivering.send(News::Unread))?;
    }
    if let Some(voice) = output.voice() {
        messages.pass_through(voice);
    }
    Ok(output)
}

/// Reads the keys that are for forkmon.
fn start_keys(
    config: &Config,
    messages: &Messages,
    bell: &Doorbell,
    keeper: &Mutex<Keeper>,
) -> anyhow::Result<Option<Keys>> {
    if config.once {
        return Ok(None);
    }
    let messages = messages.for_answers();
    let delivering = bell.clone();
    let keys = Keys::start(config.keys, messages, move |asked| {
        delivering.send(News::Control(asked));
    })?;
    if let Some(keys) = &keys {
        let mut keeper = keeper.lock().unwrap_or_else(PoisonError::into_inner);
        keeper.note_terminal(keys.memo());
    }
    Ok(keys)
}

/// The regular files that are open for writing when forkmon starts, and its own
/// file of events.
fn inherited_outputs(config: &Config) -> HashSet<(u64, u64)> {
    let standard = ["/proc/self/fd/1", "/proc/self/fd/2"].map(PathBuf::from);
    standard
        .iter()
        .chain(&config.events)
        .filter_map(|path| std::fs::metadata(path).ok())
        .filter(std::fs::Metadata::is_file)
        .map(|found| (found.dev(), found.ino()))
        .collect()
}

/// Makes the guardian's process the bell.
pub(super) fn attach(tracer: &mut Tracer, process: Tid) -> anyhow::Result<tracee::Ringer> {
    tracer
        .attach_bell(process)
        .map_err(|source| SpawnError::Ptrace(source).into())
}

fn start_watching(config: &Config, bell: &Doorbell) -> anyhow::Result<watch::Watcher> {
    let options = watch::Options {
        settle: config.delay,
        open_write_bound: OPEN_WRITE_BOUND,
    };
    let noticing = bell.clone();
    let delivering = bell.clone();
    Ok(watch::Watcher::start_noticing(
        options,
        move |path| noticing.send(News::Noticed(path.to_owned())),
        move |batch| delivering.send(News::Files(batch)),
    )?)
}
