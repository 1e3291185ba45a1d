//! Who we are to a registry: Docker's configuration file, its credential helpers, and the tokens that registries want
//! instead of a password.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use ureq::http::HeaderMap;

use super::helper::{self, Asking};
use super::registry::{Origin, Registry, SILENCE, said};
use super::{Pull, read_config};
use crate::error::{Failure, Result};
use crate::images::stream::Stop;

/// The longest answer of a token server that is read.
const ANSWER_LIMIT: u64 = 1 << 20;

pub(super) struct Auth {
    credentials: Option<Credentials>,
    /// Where they are from, for the hint.
    from: String,
    /// The whole header, once a registry has asked for one.
    header: Mutex<Option<String>>,
}

enum Credentials {
    Password(String, String),
    /// What `docker login` keeps instead of a password where the registry offers it.
    IdentityToken(String),
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct DockerConfig {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl Auth {
    pub fn find(host: &str, name: &str, how: &Pull<'_>, stop: &Stop) -> Result<Auth> {
        if let Some((user, password)) = &how.credentials {
            let credentials = Some(Credentials::Password(user.clone(), password.clone()));
            return Ok(Auth { credentials, from: "the caller".into(), header: Mutex::new(None) });
        }
        let mut looked = Vec::new();
        for path in files(how) {
            // One that was named must be there.
            if how.auth_file.is_none() && !path.exists() {
                continue;
            }
            let from = path.display().to_string();
            let config: DockerConfig = serde_json::from_slice(&read_config(&path, "credentials")?)
                .map_err(|e| Failure::new("image-pull", &from, format!("does not parse: {e}")).config())?;
            if let Some(credentials) =
                config.find(host, name, &from, &Asking { time: how.patience.unwrap_or(SILENCE), stop })?
            {
                return Ok(Auth { credentials: Some(credentials), from, header: Mutex::new(None) });
            }
            looked.push(from);
        }
        Ok(Auth { credentials: None, from: looked.join(", "), header: Mutex::new(None) })
    }

    /// What to say in a request, as far as it is known.
    pub fn header(&self) -> Option<String> {
        self.header.lock().ok()?.clone()
    }

    pub fn hint(&self) -> String {
        match (&self.credentials, self.from.as_str()) {
            (Some(_), from) => format!("look at the credentials, which are those of {from}"),
            (None, "") => "log in: there is no file with credentials".into(),
            (None, from) => format!("log in: {from} has no credentials for this registry"),
        }
    }

    /// Does what a 401 asks for.
    pub(super) fn answer(&self, registry: &Registry, headers: &HeaderMap) -> Result<()> {
        let challenges: Vec<Challenge> = headers
            .get_all("www-authenticate")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenges)
            .collect();
        let by = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme.eq_ignore_ascii_case(scheme));
        let header = if let Some(bearer) = by("bearer") {
            format!("Bearer {}", self.token(registry, bearer)?)
        } else if by("basic").is_some() {
            match &self.credentials {
                Some(Credentials::Password(user, password)) => basic(user, password),
                _ => return Err(registry.failure("the registry wants a password").hint(self.hint()).setup()),
            }
        } else {
            let schemes: Vec<&str> = challenges.iter().map(|challenge| challenge.scheme.as_str()).collect();
            let message = format!("the registry wants an authorization of another kind: {:?}", schemes.join(", "));
            return Err(registry.failure(message).hint("Basic and Bearer are known").setup());
        };
        if let Ok(mut kept) = self.header.lock() {
            *kept = Some(header);
        }
        Ok(())
    }

    fn token(&self, registry: &Registry, challenge: &Challenge) -> Result<String> {
        let realm = challenge.get("realm").unwrap_or_default();
        let to = match Origin::of(realm) {
            // The password goes there.
            Some(to) if !to.is_plain() || registry.origin().is_plain() => to,
            _ => {
                let message = format!("the registry wants a token from {realm:?}");
                return Err(registry.failure(message).hint("that must be an https address").setup());
            }
        };
        registry.check_address(&to, realm, "wants a token from")?;
        let service = challenge.get("service").unwrap_or_default();
        // Ours and not the challenge's: nothing else is wanted, whatever the registry says.
        let scope = format!("repository:{}:pull", registry.name());
        let agent = registry.agent();
        let response = match &self.credentials {
            Some(Credentials::IdentityToken(token)) => agent.post(realm).send_form([
                ("grant_type", "refresh_token"),
                ("service", service),
                ("scope", scope.as_str()),
                ("client_id", "sandcell"),
                ("refresh_token", token.as_str()),
            ]),
            other => {
                let mut request = agent.get(realm).query("scope", &scope);
                if !service.is_empty() {
                    request = request.query("service", service);
                }
                if let Some(Credentials::Password(user, password)) = other {
                    request = request.header("authorization", basic(user, password));
                }
                request.call()
            }
        };
        let response = match response {
            Ok(response) => response,
            Err(error) => return Err(registry.failure(registry.unreachable(&to, error)?).setup()),
        };
        let status = response.status().as_u16();
        if status != 200 {
            let message = format!("{to} gives no token: {}", said(status, response));
            return Err(registry.failure(message).hint(self.hint()).setup());
        }
        let mut bytes = Vec::new();
        let read = registry.reader(response.into_body()).take(ANSWER_LIMIT).read_to_end(&mut bytes);
        read.map_err(|e| registry.failure(format!("reading a token from {to}")).cause(&e).setup())?;
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let answer: Option<Answer> = serde_json::from_slice(&bytes).ok();
        let token = answer.and_then(|answer| answer.token.or(answer.access_token)).unwrap_or_default();
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(registry.failure(format!("{to} gives something that is no token")).setup());
        }
        Ok(token)
    }
}

fn files(how: &Pull<'_>) -> Vec<PathBuf> {
    if let Some(file) = &how.auth_file {
        return vec![file.clone()];
    }
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let docker = variable("DOCKER_CONFIG").or_else(|| Some(variable("HOME")?.join(".docker")));
    [
        variable("REGISTRY_AUTH_FILE"),
        docker.map(|dir| dir.join("config.json")),
        variable("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl DockerConfig {
    fn find(&self, host: &str, name: &str, from: &str, asking: &Asking<'_>) -> Result<Option<Credentials>> {
        // podman's file can have entries for a part of a registry; the longest that fits counts.
        let whole = format!("{host}/{name}");
        let prefixes: Vec<&str> =
            whole.rmatch_indices('/').map(|(at, _)| &whole[..at]).fold(vec![&whole[..]], |mut all, prefix| {
                all.push(prefix);
                all
            });
        let helper = prefixes.iter().find_map(|prefix| self.cred_helpers.get(*prefix));
        if let Some(helper) = helper.or(self.creds_store.as_ref()) {
            let server = if host == "docker.io" { "https://index.docker.io/v1/" } else { host };
            if let Some(credentials) = ask_helper(helper, server, from, asking)? {
                return Ok(Some(credentials));
            }
        }
        let entry = prefixes.iter().find_map(|prefix| self.auths.iter().find(|(key, _)| plain_key(key) == *prefix));
        let Some((_, entry)) = entry else { return Ok(None) };
        if let Some(token) = entry.identitytoken.as_ref().filter(|token| !token.is_empty()) {
            return Ok(Some(Credentials::IdentityToken(token.clone())));
        }
        if let Some(auth) = entry.auth.as_ref().filter(|auth| !auth.is_empty()) {
            let decoded = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            return match decoded.as_deref().and_then(|text| text.split_once(':')) {
                Some((user, password)) => {
                    // Docker pads short ones with zeros.
                    let password = password.trim_end_matches('\0');
                    Ok(Some(Credentials::Password(user.to_owned(), password.to_owned())))
                }
                None => Err(Failure::new("image-pull", from, format!("the credentials for {host} do not decode"))
                    .hint("log in again")
                    .config()),
            };
        }
        Ok(match (&entry.username, &entry.password) {
            (Some(user), Some(password)) => Some(Credentials::Password(user.clone(), password.clone())),
            _ => None,
        })
    }
}

/// `https://index.docker.io/v1/` and the like, as the host that is meant.
fn plain_key(key: &str) -> &str {
    let key = key.trim_start_matches("https://").trim_start_matches("http://");
    let key = key.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
    match key {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        key => key,
    }
}

/// `docker-credential-NAME get`, as Docker runs it. None where the helper knows nothing.
fn ask_helper(helper: &str, server: &str, from: &str, asking: &Asking<'_>) -> Result<Option<Credentials>> {
    let program = format!("docker-credential-{helper}");
    let failure = |message: String| Failure::new("image-pull", program.clone(), message);
    if helper.is_empty() || !helper.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Err(failure(format!("{from} names it, and that is no name of a credential helper")).config());
    }
    let (good, answer) = helper::ask(&program, server, asking).map_err(|e| {
        failure(format!("the credential helper that {from} names")).cause(&e).hint("install it, or log in").config()
    })?;
    if !good {
        return match String::from_utf8_lossy(&answer).trim() {
            // Docker's own words for it.
            text if text.contains("credentials not found") => Ok(None),
            text => Err(failure(format!("the credential helper failed: {}", text.escape_default())).config()),
        };
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    match serde_json::from_slice::<Answer>(&answer) {
        Ok(answer) if answer.username == "<token>" => Ok(Some(Credentials::IdentityToken(answer.secret))),
        Ok(answer) => Ok(Some(Credentials::Password(answer.username, answer.secret))),
        Err(_) => Err(failure("the credential helper's answer does not parse".into()).config()),
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| &value[..])
    }
}

/// `Bearer realm="…",service="…", Basic realm="…"`: RFC 9110, section 11.6.1.
fn challenges(text: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            return found;
        }
        let Some(value) = after.trim_start().strip_prefix('=') else {
            found.push(Challenge { scheme: word.to_owned(), parameters: Vec::new() });
            rest = after;
            continue;
        };
        let value = value.trim_start();
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let end = value.find([',', ' ', '\t']).unwrap_or(value.len());
                (value[..end].to_owned(), &value[end..])
            }
        };
        if let Some(challenge) = found.last_mut() {
            challenge.parameters.push((word.to_owned(), value));
        }
        rest = after;
    }
}

/// Up to the closing quote, and what follows it.
fn unquote(quoted: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_as_the_standard_writes_them() {
        let found =
            challenges(r#"Negotiate, Bearer realm="https://a.b/t?x,y", service=reg , scope="a \"b\"" Basic realm="r""#);
        let schemes: Vec<&str> = found.iter().map(|c| &c.scheme[..]).collect();
        assert_eq!(schemes, ["Negotiate", "Bearer", "Basic"]);
        assert_eq!(found[1].get("Realm"), Some("https://a.b/t?x,y"));
        assert_eq!(found[1].get("service"), Some("reg"));
        assert_eq!(found[1].get("scope"), Some("a \"b\""));
        for broken in ["", ",,", "=", "Bearer realm=\"open", "a=b", "\"", "é=\"\\"] {
            challenges(broken);
        }
    }

    fn password(config: &str, host: &str, name: &str) -> Option<String> {
        let config: DockerConfig = serde_json::from_str(config).unwrap();
        let stop = Stop { deadline: None, stopped: Default::default() };
        let asking = Asking { time: SILENCE, stop: &stop };
        match config.find(host, name, "f", &asking).unwrap()? {
            Credentials::Password(user, password) => Some(format!("{user}:{password}")),
            Credentials::IdentityToken(token) => Some(token),
        }
    }

    #[test]
    fn credentials_are_found_as_docker_and_podman_write_them() {
        // u:p
        let config = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}, "r.io": {"auth": "dTpw"},
            "r.io/team": {"username": "team", "password": "x"}, "https://old.io": {"identitytoken": "t"}}}"#;
        assert_eq!(password(config, "docker.io", "library/a").unwrap(), "u:p");
        assert_eq!(password(config, "r.io", "a").unwrap(), "u:p");
        assert_eq!(password(config, "r.io", "team/a").unwrap(), "team:x");
        assert_eq!(password(config, "old.io", "a").unwrap(), "t");
        for (host, name) in [("r.io.example", "a"), ("x.r.io", "a"), ("r.io:5000", "a")] {
            assert_eq!(password(config, host, name), None, "{host}");
        }
    }

    #[test]
    fn a_helper_with_a_path_in_its_name_is_not_run() {
        let stop = Stop { deadline: None, stopped: Default::default() };
        let asking = Asking { time: SILENCE, stop: &stop };
        for helper in ["", "../../tmp/x", "a/b", "a b", "x;y"] {
            assert!(ask_helper(helper, "r.io", "f", &asking).is_err(), "{helper}");
        }
    }
}
