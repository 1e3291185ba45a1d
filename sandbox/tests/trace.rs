//! How long each stage of a start takes is told where somebody asks for it, and costs nothing where nobody does.

mod common;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sandcell::{Builder, Root, Sandbox};

type Stages = Arc<Mutex<Vec<(String, String, bool, Duration)>>>;

fn traced(builder: Builder) -> (Builder, Stages) {
    let stages = Stages::default();
    let told = stages.clone();
    let builder = builder.on_start_stage(move |stage| {
        told.lock().unwrap().push((stage.name.to_owned(), stage.subject.to_owned(), stage.inside, stage.took));
    });
    (builder, stages)
}

fn names(stages: &Stages, inside: bool) -> Vec<String> {
    let stages = stages.lock().unwrap();
    stages.iter().filter(|(.., of_init, _)| *of_init == inside).map(|(name, ..)| name.clone()).collect()
}

#[test]
fn a_run_tells_its_stages_in_order_and_each_step_of_init_as_explain_names_it() {
    let (builder, stages) = traced(Sandbox::builder().hostname("traced"));
    let sandbox = builder.build().unwrap();
    assert_eq!(names(&stages, false), ["check", "resolve", "prepare"]);
    stages.lock().unwrap().clear();
    let before = Instant::now();
    let output = sandbox.command("echo").arg("here").output().unwrap();
    let whole = before.elapsed();
    assert_eq!(output.stdout, b"here\n");
    assert_eq!(names(&stages, false), ["ids", "cgroup", "plan", "clone", "request", "setup", "program"]);
    let explained: Vec<String> = sandbox.explain().unwrap().into_iter().map(|step| step.name).collect();
    let steps = names(&stages, true);
    // The last one tells that all is ready.
    assert_eq!(explained.last().map(String::as_str), Some("announce"));
    assert_eq!(steps, explained[..explained.len() - 1]);
    let all = stages.lock().unwrap();
    assert!(all.iter().any(|(name, subject, ..)| name == "hostname" && subject == "traced"), "{all:?}");
    let took = |of_init: bool| all.iter().filter(|stage| stage.2 == of_init).map(|stage| stage.3).sum::<Duration>();
    assert!(took(true) > Duration::ZERO && took(true) <= whole, "{:?} of {whole:?}", took(true));
    assert!(took(false) <= whole, "{:?} of {whole:?}", took(false));
}

#[test]
fn a_cell_tells_its_start_once_and_its_commands_run_as_ever() {
    let (builder, stages) = traced(Sandbox::builder());
    let cell = builder.build().unwrap().start().unwrap();
    let told = names(&stages, false);
    assert_eq!(told, ["check", "resolve", "prepare", "ids", "cgroup", "plan", "clone", "setup"]);
    for _ in 0..2 {
        assert!(cell.command("true").status().unwrap().success());
    }
    assert_eq!(names(&stages, false), told);
}

#[test]
fn a_start_that_fails_tells_the_steps_before_the_one_that_failed() {
    let scratch = common::Scratch::new();
    let (builder, stages) = traced(Sandbox::builder().root(Root::Layers(vec![scratch.path().into(); 2])));
    let error = builder.build().unwrap().command("true").status().unwrap_err();
    assert_eq!(error.stage(), "overlay-mount", "{error}");
    let steps = names(&stages, true);
    assert!(steps.iter().any(|name| name == "base") && !steps.iter().any(|name| name == "root-overlay"), "{steps:?}");
    assert!(!names(&stages, false).iter().any(|name| name == "setup"));
}

#[test]
fn without_a_hook_init_is_asked_for_nothing() {
    let steps = Sandbox::builder().build().unwrap().explain().unwrap();
    assert!(!steps.iter().any(|step| step.name == "trace" || step.name == "announce"));
    let (builder, _) = traced(Sandbox::builder());
    let steps = builder.build().unwrap().explain().unwrap();
    assert_eq!(steps[0].name, "trace");
}
