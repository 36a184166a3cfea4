//! The guest's standard streams, as runs begin, are frozen, dropped and end. What
//! is done with the bytes is `output`'s concern.

use super::Supervisor;
use super::inbox::News;
use super::run::Pending;
use crate::events::{Event, Shown, Span};
use crate::{input, output};
use output::Told;
use rustix::process::{Pid, getpgid};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};
use tracee::{Stopped, Tid};

/// How far the guest was with its standard streams.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Positions {
    input: input::Position,
    output: output::Position,
    /// Of the terminal that it wrote to through forkmon.
    size: Option<output::Size>,
}

/// A run's end that is not told yet: its output is still being written.
#[derive(Copy, Clone, Debug)]
pub(super) struct UntoldExit {
    code: Option<i32>,
    signal: Option<i32>,
    /// By destination.
    shown: [Option<Span>; 2],
}

impl Supervisor<'_> {
    /// The guest's first process has ended. That is told once all of its output is
    /// written, so that whoever hears of it can read that.
    pub(super) fn exited(&mut self, code: Option<i32>, signal: Option<i32>) {
        if self.output.ended(self.run.number) {
            self.untold_exit = Some(UntoldExit {
                code,
                signal,
                shown: [None; 2],
            });
        } else {
            self.emit(&Event::Exit {
                code,
                signal,
                shown: None,
            });
        }
    }

    /// Tells of a run's end whose output nobody waits for any more.
    fn tell_exit(&mut self) {
        if let Some(exit) = self.untold_exit.take() {
            self.emit(&Event::Exit {
                code: exit.code,
                signal: exit.signal,
                shown: None,
            });
        }
    }

    /// Something became known of a destination of the guest's output.
    pub(super) fn output_told(&mut self, index: usize, told: Told) {
        match told {
            Told::Reached { run, from, to } if run == self.run.number => {
                self.output_written(index, Span { from, to });
            }
            Told::Reached { .. } | Told::Finished => {}
            Told::Forgot => {
                self.warn(
                    "output-limit",
                    "the program has written more than is kept of its output; a resume will show \
                     the end of it only; see --output-limit",
                );
            }
            Told::Broken(error) => {
                let which = ["output", "error"][index];
                let text = format!("cannot write to standard {which}: {error}");
                self.warn("output-broken", &text);
            }
        }
    }

    fn output_written(&mut self, index: usize, span: Span) {
        let Some(exit) = &mut self.untold_exit else {
            return;
        };
        exit.shown[index] = Some(span);
        if self.output.destinations() == 1 {
            exit.shown[1] = Some(span);
        }
        let UntoldExit {
            code,
            signal,
            shown,
        } = *exit;
        if let [Some(stdout), Some(stderr)] = shown {
            self.untold_exit = None;
            self.emit(&Event::Exit {
                code,
                signal,
                shown: Some(Shown { stdout, stderr }),
            });
            if !self.run.is_alive() {
                self.tell_keys(false);
            }
        }
    }

    /// How far the guest is, which must stand still.
    pub(super) fn positions(&self) -> Positions {
        Positions {
            input: self.input.position(),
            output: self.output.position(),
            size: self.output.size(),
        }
    }

    /// The run is dead, and the next one begins at a checkpoint or at the beginning.
    /// Answers how many bytes of output were to be shown again and are not kept.
    pub(super) fn rewind_streams(&mut self, to: Option<Positions>) -> anyhow::Result<u64> {
        self.tell_exit();
        let left_out = self.output.rewind(to.map(|to| to.output));
        self.input.rewind(to.map(|to| to.input))?;
        Ok(left_out)
    }

    /// A copy of a checkpoint is about to run: if its terminal has another size by now,
    /// it is told so.
    pub(super) fn tell_of_size(&self, copy: Tid, then: Positions) {
        self.output.copy_size();
        if self.output.size() != then.size {
            tracee::kill_task(copy, libc::SIGWINCH);
        }
    }

    /// Some of the input is not there for another run.
    pub(super) fn input_lost(&mut self, why: &str) {
        let text = format!(
            "the program's input cannot be kept any more: {why}; forkmon will end at the next \
             edit; see --stdin"
        );
        self.warn("input-lost", &text);
    }

    /// The guest is about to set the modes of a terminal.
    pub(super) fn sets_modes(
        &mut self,
        task: Stopped,
        process: Tid,
        fd: i32,
    ) -> anyhow::Result<()> {
        let open = std::fs::metadata(format!("/proc/{process}/fd/{fd}"));
        if let Ok(device) = open.map(|file| file.rdev())
            && self.output.before_modes(device)
        {
            self.run
                .wait_for_answer(task.tid(), Pending::Modes { device });
            return Ok(task.resume_to_syscall()?);
        }
        Ok(task.resume(None)?)
    }

    /// The guest has set the modes of a terminal, or has failed to.
    pub(super) fn modes_set(&mut self, process: Tid, device: u64) {
        self.output.after_modes(device, group_of(process));
    }

    /// Has everything written that the guest left, unless somebody does not want to
    /// wait for that.
    pub(super) fn finish_output(&mut self) {
        self.output.finish();
        // Asked to end for the second time, forkmon waits for nobody.
        let patience = match self.is_hurried {
            true => Duration::ZERO,
            false => self.config.stop_timeout,
        };
        let deadline = Instant::now() + patience;
        let mut left = self.output.destinations();
        while left > 0 {
            let patience = deadline.saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(patience) {
                Ok(News::Output(_, Told::Finished)) => left -= 1,
                Ok(News::Output(index, told)) => self.output_told(index, told),
                Ok(News::Quit { .. }) | Err(_) => break,
                Ok(_) => {}
            }
        }
        self.tell_exit();
    }
}

/// A process's group.
pub(super) fn group_of(process: Tid) -> Option<Pid> {
    getpgid(Pid::from_raw(process.raw())).ok()
}
