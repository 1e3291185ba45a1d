//! New images: builds from steps, commits of what runs changed.

use std::ffi::{c_char, c_int, c_void};

use sandcell::Error;
use sandcell::image::{Build as Steps, BuildStep, Commit as Layer, IdRange, Owners};

use crate::error::{ErrorObject, SANDCELL_ERROR_CONFIG, entry, free, guard};
use crate::image::{Store, base_of, unknown};
use crate::load::Stop;
use crate::policy::Policy;
use crate::text::{Bytes, Place, Text, Texts, blob, c_text, empty, hand_out, handle, maybe, path, word, words};

/// What a build or a commit is to be like, with the first setter that was refused.
#[derive(Debug)]
struct Remembering<T> {
    /// Nothing only where a setter panicked.
    what: Option<T>,
    mistake: Option<ErrorObject>,
}

impl<T> Remembering<T> {
    /// Makes one change, or keeps the mistake for later.
    fn set(&mut self, change: impl FnOnce(T) -> Result<T, ErrorObject>) -> c_int
    where
        T: Clone,
    {
        let done = guard(|| self.what.clone().map(change).transpose());
        match done {
            Ok(what) => {
                self.what = what;
                0
            }
            Err(mistake) => {
                let kind = mistake.kind;
                self.mistake.get_or_insert(mistake);
                kind
            }
        }
    }

    fn get(&self) -> Result<&T, ErrorObject> {
        match (&self.mistake, &self.what) {
            (Some(mistake), _) => Err(mistake.clone()),
            (None, what) => what.as_ref().ok_or_else(|| Error::option("build", "is broken").into()),
        }
    }
}

/// Is told of a step that is about to be made: its number from 1 on, how many there are, its text as a Dockerfile has it, and
/// whether its layer was made before. From the thread that builds; it may not throw, and calls nothing of sandcell's but
/// sandcell_stop_now.
pub type BuildProgress =
    Option<unsafe extern "C" fn(data: *mut c_void, number: usize, total: usize, step: *const c_char, cached: bool)>;

/// The steps of an image. To be set up by one thread.
#[derive(Debug)]
pub struct Build {
    steps: Remembering<Steps>,
    progress: BuildProgress,
    data: *mut c_void,
}

fn build(steps: Result<Steps, ErrorObject>) -> *mut Build {
    let (what, mistake) = match steps {
        Ok(steps) => (Some(steps), None),
        Err(mistake) => (None, Some(mistake)),
    };
    let steps = Remembering { what, mistake };
    Box::into_raw(Box::new(Build { steps, progress: None, data: std::ptr::null_mut() }))
}

fn step(build: Option<&mut Build>, change: impl FnOnce(Steps) -> Result<Steps, ErrorObject>) -> c_int {
    build.map_or(SANDCELL_ERROR_CONFIG, |build| build.steps.set(change))
}

/// Begins a build on an image of the store, or on nothing: `scratch`.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_build_new(base: Text<'_>) -> *mut Build {
    guard(|| Ok(build(word(base, "base").map(Steps::from).map_err(Into::into)))).unwrap_or(std::ptr::null_mut())
}

/// Begins a build with the steps of a Dockerfile, which is read now. An instruction that is not supported is an error
/// that names it.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_build_read(
    dockerfile: Text<'_>,
    build: Place<'_, *mut Build>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(build, "build")?;
        *place = self::build(Ok(Steps::dockerfile_at(path(dockerfile, "dockerfile")?)?));
        Ok(())
    })
}

/// Frees it. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_build_free(build: Option<Box<Build>>) {
    free(build)
}

/// Adds a step that is one text: `run` (a line of shell), `workdir`, `user`, `expose`, `volume` or
/// `stop_signal`.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_build_add_step(build: Option<&mut Build>, kind: Text<'_>, argument: Text<'_>) -> c_int {
    step(build, |steps| {
        let text = word(argument, "argument")?;
        Ok(match word(kind, "kind")? {
            "run" => steps.run(text),
            "workdir" => steps.workdir(text),
            "user" => steps.user(text),
            "expose" => steps.expose(text),
            "volume" => steps.volume(text),
            "stop_signal" => steps.stop_signal(text),
            other => {
                return Err(unknown("kind", other, "run, workdir, user, expose, volume, stop_signal").into());
            }
        })
    })
}

/// Adds a step that is a list of words (with a NULL at its end): `run` (without a shell), `cmd` or `entrypoint`.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_build_add_words(build: Option<&mut Build>, kind: Text<'_>, argv: Texts<'_>) -> c_int {
    step(build, |steps| {
        let argv = words(argv, "argv")?;
        Ok(match word(kind, "kind")? {
            "run" => steps.run_words(argv),
            "cmd" => steps.cmd(argv),
            "entrypoint" => steps.entrypoint(argv),
            other => return Err(unknown("kind", other, "run, cmd, entrypoint").into()),
        })
    })
}

/// Adds a step that sets something: a variable (`env`) or a `label`.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_build_add_pair(
    build: Option<&mut Build>,
    kind: Text<'_>,
    key: Text<'_>,
    content: Text<'_>,
) -> c_int {
    step(build, |steps| {
        let (key, value) = (word(key, "key")?, word(content, "content")?);
        Ok(match word(kind, "kind")? {
            "env" => steps.env(key, value),
            "label" => steps.label(key, value),
            other => return Err(unknown("kind", other, "env, label").into()),
        })
    })
}

/// Adds a step that copies files of the context (a list with a NULL at its end; `*`, `?` and `[...]` are patterns) to
/// `dest`: a directory where it ends with a slash, is one in the image, or where there are several. `owner` is
/// `USER[:GROUP]`, or NULL for root; `mode` is UINT32_MAX for that of the files.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_build_add_copy(
    build: Option<&mut Build>,
    files: Texts<'_>,
    dest: Text<'_>,
    owner: Text<'_>,
    mode: u32,
) -> c_int {
    step(build, |steps| {
        let owner = maybe(owner, "owner")?.map(str::to_owned);
        let mode = (mode != u32::MAX).then_some(mode);
        Ok(steps.copy_as(words(files, "files")?, word(dest, "dest")?, owner, mode))
    })
}

/// Where the files to be copied are, with its `.dockerignore`.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_build_set_context(build: Option<&mut Build>, dir: Text<'_>) -> c_int {
    step(build, |steps| Ok(steps.context(path(dir, "context")?)))
}

/// The new image's name.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_build_set_name(build: Option<&mut Build>, name: Text<'_>) -> c_int {
    step(build, |steps| Ok(steps.name(word(name, "name")?.parse()?)))
}

/// Sets any option of a build by its name and text, as the program takes them: `name`, `context`, `arg` and `KEY=VALUE`,
/// `network`, `secret` and `id=NAME,src=FILE`. `sandcell build --help` lists them. The functions below do the same with typed values.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_build_set(build: Option<&mut Build>, option: Text<'_>, text: Text<'_>) -> c_int {
    step(build, |steps| {
        let option = word(option, "option")?;
        Ok(steps.option(option, word(text, option)?)?)
    })
}

/// The value of an `ARG` of the Dockerfile.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_build_add_arg(build: Option<&mut Build>, key: Text<'_>, content: Text<'_>) -> c_int {
    step(build, |steps| Ok(steps.arg(word(key, "key")?, word(content, "content")?)))
}

/// The stage that becomes the image, by its name or number, instead of the last. Stages that it does not need are not made.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_build_set_target(build: Option<&mut Build>, stage: Text<'_>) -> c_int {
    step(build, |steps| Ok(steps.target(word(stage, "stage")?)))
}

/// A secret for `RUN --mount=type=secret,id=...`: `length` bytes, which are copied. It is in no layer.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_build_add_secret(
    build: Option<&mut Build>,
    id: Text<'_>,
    content: Bytes<'_, c_void>,
    length: usize,
) -> c_int {
    step(build, |steps| Ok(steps.secret(word(id, "id")?, blob(content, length, "content")?)))
}

/// The same with what a file has when the step runs.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_build_add_secret_file(build: Option<&mut Build>, id: Text<'_>, file: Text<'_>) -> c_int {
    step(build, |steps| Ok(steps.secret_file(word(id, "id")?, path(file, "file")?)))
}

/// The socket of an ssh agent for `RUN --mount=type=ssh`, which most steps know as `default`.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_build_add_ssh_agent(build: Option<&mut Build>, id: Text<'_>, socket: Text<'_>) -> c_int {
    step(build, |steps| Ok(steps.ssh_agent(word(id, "id")?, path(socket, "socket")?)))
}

/// What the programs of the steps run in: limits, network, mounts, as the policy has them now. Root, upper, user, working
/// directory and environment are the build's.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_build_set_policy(build: Option<&mut Build>, policy: Option<&Policy>) -> c_int {
    step(build, |steps| Ok(steps.sandbox(handle(policy, "policy")?.builder()?.clone())))
}

/// The image's date, and the latest that a file in a new layer can have, in seconds since 1970 (SOURCE_DATE_EPOCH). An image
/// has no date by default.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_build_set_timestamp(build: Option<&mut Build>, seconds: i64) -> c_int {
    step(build, |steps| Ok(steps.timestamp(seconds)))
}

/// Whether layers that were made before by the same step on the same layers are taken as they are; they are by default.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_build_set_cache(build: Option<&mut Build>, cache: bool) -> c_int {
    step(build, |steps| Ok(steps.cache(cache)))
}

/// Lets programs write to the caller's own standard output and error. Otherwise the end of what they wrote is in the error of
/// a step that fails.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_build_set_show_output(build: Option<&mut Build>, show: bool) -> c_int {
    step(build, |steps| Ok(steps.show_output(show)))
}

/// Ends the build early: the program that runs is killed, and no further step is made.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_build_set_stop(build: Option<&mut Build>, stop: Option<&Stop>) -> c_int {
    step(build, |steps| Ok(steps.stop(handle(stop, "stop")?.stop.clone())))
}

/// Tells `progress` (NULL for nobody) of every step; `data` is passed to it.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_build_set_progress(
    build: Option<&mut Build>,
    progress: BuildProgress,
    data: *mut c_void,
) -> c_int {
    let Some(build) = build else {
        return SANDCELL_ERROR_CONFIG;
    };
    (build.progress, build.data) = (progress, data);
    0
}

/// Makes an image by its steps. `id` becomes the image's.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_store_build(
    store: Option<&Store>,
    build: Option<&Build>,
    id: Place<'_, *mut c_char>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(id, "id")?;
        let (store, build) = (handle(store, "store")?, handle(build, "build")?);
        let tell = |step: &BuildStep| {
            if let Some(call) = build.progress {
                let text = c_text(step.text.as_str());
                // SAFETY: the caller's function, with what it was given for it.
                unsafe { call(build.data, step.number, step.total, text.as_ptr(), step.cached) }
            }
        };
        *place = hand_out(store.inner.build(build.steps.get()?, &tell)?.id.to_string());
        Ok(())
    })
}

/// How to commit. To be set up by one thread.
#[derive(Debug)]
pub struct Commit {
    how: Remembering<How>,
}

/// Base and owners are known only where the upper is.
#[derive(Debug, Clone)]
struct How {
    layer: Layer,
    base: Option<String>,
    owners: Option<Owners>,
    uids: Vec<IdRange>,
    gids: Vec<IdRange>,
}

fn with(commit: Option<&mut Commit>, change: impl FnOnce(How) -> Result<How, ErrorObject>) -> c_int {
    commit.map_or(SANDCELL_ERROR_CONFIG, |commit| commit.how.set(change))
}

impl Default for How {
    fn default() -> How {
        How {
            layer: Layer::on("").created_by("sandcell commit"),
            base: None,
            owners: None,
            uids: Vec::new(),
            gids: Vec::new(),
        }
    }
}

/// Begins a commit in which everything has its default. NULL only where sandcell itself is broken.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_commit_new() -> *mut Commit {
    let how = || Remembering { what: Some(How::default()), mistake: None };
    guard(|| Ok(Box::into_raw(Box::new(Commit { how: how() })))).unwrap_or(std::ptr::null_mut())
}

/// Frees it. NULL is fine.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_commit_free(commit: Option<Box<Commit>>) {
    free(commit)
}

/// Says something about the commit: `name` (the new image's), `base` (the image that the upper lies on, instead of the one
/// that was run), `created` (a date, RFC 3339; none by default), `created_by` (the command, for the history),
/// `author`, `comment`, or `owners` (whom the files belong to in the image: `noted`, the default: as the run mapped them;
/// `root`; `kept`: as they are on the disk; or see sandcell_commit_add_uids).
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_commit_set(commit: Option<&mut Commit>, key: Text<'_>, content: Text<'_>) -> c_int {
    with(commit, |mut how| {
        let text = word(content, "content")?;
        match word(key, "key")? {
            "base" => how.base = Some(text.to_owned()),
            "owners" => {
                (how.uids, how.gids) = (Vec::new(), Vec::new());
                how.owners = match text {
                    "noted" => None,
                    "root" => Some(Owners::root()),
                    "kept" => Some(Owners::as_they_are()),
                    other => return Err(unknown("owners", other, "noted, root, kept").into()),
                }
            }
            // The library's table has the others.
            key => how.layer = how.layer.option(key, text)?,
        }
        Ok(how)
    })
}

fn add_ids(
    commit: Option<&mut Commit>,
    (inside, host, count): (u32, u32, u32),
    ranges: impl FnOnce(&mut How) -> &mut Vec<IdRange>,
) -> c_int {
    with(commit, |mut how| {
        if count == 0 || [inside, host].iter().any(|first| first.checked_add(count).is_none()) {
            return Err(Error::option("count", "is none, or more than there are ids from there on").into());
        }
        ranges(&mut how).push(IdRange { inside, host, count });
        how.owners = Some(Owners::mapped(how.uids.clone(), how.gids.clone()));
        Ok(how)
    })
}

/// Says whose the files of UIDs on the disk are in the image: `count` UIDs from `host` on belong to those from `inside` on.
/// A file of an id that is in no range is root's. This is for what a run wrote that noted no ids, and is instead of `owners`.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_commit_add_uids(commit: Option<&mut Commit>, inside: u32, host: u32, count: u32) -> c_int {
    add_ids(commit, (inside, host, count), |how| &mut how.uids)
}

/// The same for groups.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_commit_add_gids(commit: Option<&mut Commit>, inside: u32, host: u32, count: u32) -> c_int {
    add_ids(commit, (inside, host, count), |how| &mut how.gids)
}

/// Changes the configuration as an instruction of a Dockerfile does: `CMD ["app"]`, `ENV A=b`.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_commit_add_change(commit: Option<&mut Commit>, line: Text<'_>) -> c_int {
    with(commit, |how| {
        let layer = how.layer.change(word(line, "line")?)?;
        Ok(How { layer, ..how })
    })
}

/// Sets a key of the image's `config` object (`Env`, `Cmd`, `User`, `Labels`) to a value in JSON; `null` takes it away.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_commit_set_config(commit: Option<&mut Commit>, key: Text<'_>, json: Text<'_>) -> c_int {
    with(commit, |how| {
        let layer = how.layer.set(word(key, "key")?, word(json, "json")?)?;
        Ok(How { layer, ..how })
    })
}

/// Makes an image of what runs on an image changed: `upper` is what sandcell_policy_set_upper_dir got, or NULL to change
/// the configuration alone, for which `commit` names the base. `commit` may be NULL otherwise. `id` becomes the new image's.
#[unsafe(no_mangle)]
pub extern "C" fn sandcell_store_commit(
    store: Option<&Store>,
    upper: Text<'_>,
    commit: Option<&Commit>,
    id: Place<'_, *mut c_char>,
    error: Place<'_, *mut ErrorObject>,
) -> c_int {
    entry(error, || {
        let place = empty(id, "id")?;
        let store = handle(store, "store")?;
        let How { layer, base, owners, .. } = match commit {
            Some(commit) => commit.how.get()?.clone(),
            None => How::default(),
        };
        let image = if upper.is_null() && base.is_some() {
            store.inner.commit(None, &layer.base(base.unwrap_or_default()))?
        } else {
            let upper = path(upper, "upper")?;
            let layer = layer.base(base_of(upper, base.as_deref())?);
            let layer = owners.map_or(layer.clone(), |owners| layer.owners(owners));
            store.inner.commit(Some(upper), &layer)?
        };
        *place = hand_out(image.id.to_string());
        Ok(())
    })
}
