//! Where a command is carried out: in a sandbox of its own, in one that was built ahead, in a started cell.

use std::sync::Arc;

use crate::api::cell::Cell;
use crate::api::child::{Child, Options};
use crate::api::command::Command;
use crate::api::pool::Pool;
use crate::api::sandbox::Sandbox;
use crate::api::shared::send_request;
use crate::error::{Failure, Result};
use crate::plan::Plan;
use crate::supervise::init::{Init, Keeper};

impl Sandbox {
    pub(super) fn run(&self, command: &mut Command) -> Result<Child> {
        let Options { changes, learn, .. } = command.options(self.shared.policy());
        let mut child = None;
        let (init, plan) = self.shared.launch(
            changes,
            learn,
            Some(&mut |init: &Init, plan: &Plan| {
                if command.terminal()?.is_some() {
                    init.make_room_for_keeper()?;
                }
                let (request, pipes) = command.request(&self.shared, init, (&plan.user, &plan.home), true)?;
                let socket = send_request(init, &request.bytes, &request.fds)?;
                child = Some((socket, pipes));
                Ok(())
            }),
            None,
        )?;
        let (socket, pipes) = child.expect("the request was sent above");
        let mut child = Child::new(
            self.shared.clone(),
            Arc::new(init),
            socket,
            pipes,
            true,
            &command.options(self.shared.policy()),
        );
        let dir = command.working_dir(&self.shared, &plan.home);
        let mut stages = self.shared.trace.clock();
        child.started(&plan, &command.program(), dir).map_err(|error| self.shared.name_the_limit(error))?;
        stages.lap("program");
        Ok(child)
    }
}

impl Pool {
    pub(super) fn run(&self, command: &mut Command) -> Result<Child> {
        let sandbox = self.sandbox();
        let shared = &sandbox.shared;
        let options = command.options(shared.policy());
        for (option, set) in [("track_changes", options.changes), ("learn", options.learn)] {
            if set {
                return Err(Failure::new(
                    "option",
                    option,
                    "is decided before a sandbox is built, and those of a pool are",
                )
                .hint("Run it in a sandbox that is made for it: `sandbox.command(..)`.")
                .config());
            }
        }
        let Some(parked) = self.claim() else {
            let child = sandbox.run(command);
            self.fill();
            return child;
        };
        let (init, plan) = (&parked.init, &parked.plan);
        let (request, pipes) = match command.request(shared, init, (&plan.user, &plan.home), true) {
            Ok(made) => made,
            Err(mistake) => {
                // Nothing has been asked of it yet.
                self.put_back(parked);
                return Err(mistake);
            }
        };
        if options.terminal_streams != 0 {
            init.make_room_for_keeper()?;
        }
        let socket = send_request(init, &request.bytes, &request.fds)?;
        drop(request);
        let (init, plan) = parked.into_parts();
        let mut child = Child::new(shared.clone(), Arc::new(init), socket, pipes, true, &options);
        child.leave_end_to(self.ending());
        // While the program begins.
        self.fill();
        let dir = command.working_dir(shared, &plan.home);
        child.started(&plan, &command.program(), dir).map_err(|error| shared.name_the_limit(error))?;
        Ok(child)
    }
}

impl Cell {
    pub(super) fn run(&self, request: &mut Command) -> Result<Child> {
        let (shared, init, plan) = self.parts();
        if request.options(shared.policy()).learn {
            return Err(Failure::new("option", "learn", "the programs of a cell share one system call filter")
                .hint("learn from a program in a sandbox of its own: `sandbox.command(..)`")
                .config());
        }
        let (ready, pipes) = request.request(shared, init, (&plan.user, &plan.home), false)?;
        let options = request.options(shared.policy());
        let Some(awake) = init.awake(options.timeout)? else {
            return Child::never_started(shared.clone(), init.clone(), pipes, &options);
        };
        let keeper = Keeper::new(init.clone())?;
        let socket = send_request(init, &ready.bytes, &ready.fds)?;
        let mut child = Child::new(shared.clone(), init.clone(), socket, pipes, false, &options);
        child.keep(keeper);
        child.started(plan, &request.program(), request.working_dir(shared, &plan.home))?;
        drop(awake);
        Ok(child)
    }
}
