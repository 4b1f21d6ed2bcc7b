//! Saying who we are: what a registry was told last, and what it is told next.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use reqwest::Url;
use reqwest::blocking::{Client as Http, RequestBuilder};
use reqwest::header::HeaderValue;
use serde::Deserialize;

use super::body;
use super::challenge::Challenge;
use super::client::{self, is_secure_enough};
use super::credentials::Credentials;
use super::{AuthFiles, Reference, RegistryError, Settings};
use crate::counters::{Meter, RequestKind};

/// How long a token is good for where nothing is said of it.
const TOKEN_AGE: Duration = Duration::from_secs(60);
/// The largest answer of whoever gives tokens.
const TOKEN_MAX: u64 = 1 << 20;

/// What is to be done with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Actions {
    /// What a registry says that is needed, or reading.
    Pull,
    /// Reading and writing, whatever it says.
    Push,
}

/// Says who we are to one registry, for one repository.
#[derive(Debug)]
pub(super) struct Auth {
    image: Reference,
    actions: Actions,
    files: AuthFiles,
    meter: Meter,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What the files had when they were read last. What is wrong with them is told when they are needed.
    credentials: Result<Option<Credentials>, RegistryError>,
    challenge: Option<Challenge>,
    granted: Option<Granted>,
}

/// What a registry accepted, or will accept.
#[derive(Debug)]
struct Granted {
    header: HeaderValue,
    until: Option<Instant>,
}

impl Auth {
    /// Reads the files, and asks credential programs. Nothing is sent.
    pub(super) fn new(image: Reference, settings: &Settings, actions: Actions) -> Self {
        let files = settings.auth.clone();
        let state = State {
            credentials: files.find(&image),
            challenge: None,
            granted: None,
        };
        Self {
            image,
            actions,
            files,
            meter: settings.counters.meter(RequestKind::Token),
            state: Mutex::new(state),
        }
    }

    /// What the next request says of us. A token that is about to end is replaced.
    pub(super) fn header(&self, http: &Http, base: &Url) -> Option<HeaderValue> {
        let mut state = self.state.lock();
        let ends = state.granted.as_ref().and_then(|it| it.until);
        if ends.is_some_and(|ends| ends <= Instant::now()) {
            state.granted = None;
            // Where this fails, the registry's refusal begins anew.
            if let Ok(granted) = self.grant(&state, http, base) {
                state.granted = Some(granted);
            }
        }
        state.granted.as_ref().map(|it| it.header.clone())
    }

    /// Finds something else to say, after what was `refused`. `again` is whether that was new already: then the
    /// files are read again.
    ///
    /// # Errors
    /// There is nothing else to say.
    pub(super) fn renew(
        &self,
        refused: Option<&HeaderValue>,
        challenge: Option<Challenge>,
        again: bool,
        (http, base): (&Http, &Url),
    ) -> Result<(), RegistryError> {
        let mut state = self.state.lock();
        let now = state.granted.as_ref().map(|it| &it.header);
        if now.is_some() && now != refused {
            // Another thread was faster.
            return Ok(());
        }
        if challenge.is_some() {
            state.challenge = challenge;
        }
        let has_basic = matches!(state.challenge, Some(Challenge::Basic));
        let is_read_again = again || (has_basic && refused.is_some());
        if is_read_again || state.credentials.is_err() {
            self.read_again(&mut state)?;
        }
        state.granted = None;
        let granted = match self.grant(&state, http, base) {
            Err(RegistryError::Unauthorized { .. }) if !is_read_again => {
                self.read_again(&mut state)?;
                self.grant(&state, http, base)
            }
            other => other,
        };
        state.granted = Some(granted?);
        Ok(())
    }

    /// Reads the files again.
    ///
    /// # Errors
    /// They say what they said before, or nothing any more.
    fn read_again(&self, state: &mut State) -> Result<(), RegistryError> {
        let found = self.files.find(&self.image);
        match (&state.credentials, found) {
            (Ok(before), Ok(after)) if *before == after => Err(self.refused(state)),
            // They cannot be read any more: those that are known stay.
            (Ok(_), Err(_)) => Err(self.refused(state)),
            (_, Err(error)) => Err(error),
            (_, found) => {
                state.credentials = found;
                Ok(())
            }
        }
    }

    fn refused(&self, state: &State) -> RegistryError {
        RegistryError::Unauthorized {
            registry: self.image.registry().to_owned(),
            known: matches!(state.credentials, Ok(Some(_))),
        }
    }

    fn grant(&self, state: &State, http: &Http, base: &Url) -> Result<Granted, RegistryError> {
        let credentials = state.credentials.as_ref().ok().and_then(Option::as_ref);
        match &state.challenge {
            None => Err(self.refused(state)),
            Some(Challenge::Basic) => match credentials {
                Some(Credentials::Basic { user, password }) => Ok(Granted {
                    header: secret(&format!(
                        "Basic {}",
                        STANDARD.encode(format!("{user}:{password}"))
                    ))
                    .ok_or_else(|| self.refused(state))?,
                    until: None,
                }),
                _ => Err(self.refused(state)),
            },
            Some(Challenge::Bearer {
                realm,
                service,
                scope,
            }) => {
                let what = format!("a token for {}", self.image.registry());
                let wrong = |reason: &str| RegistryError::Answer {
                    what: what.clone(),
                    reason: reason.to_owned(),
                };
                let realm = Url::parse(realm).map_err(|_| wrong("its token server is no URL"))?;
                if !is_secure_enough(&realm, base) {
                    return Err(wrong("its token server is not asked over https"));
                }
                let of = |actions| format!("repository:{}:{actions}", self.image.repository());
                let scope = match (self.actions, scope) {
                    (Actions::Pull, Some(scope)) => scope.clone(),
                    (Actions::Pull, None) => of("pull"),
                    // A registry that was asked to show something names no more than that.
                    (Actions::Push, _) => of("pull,push"),
                };
                let request = ask(http, &realm, service.as_deref(), &scope, credentials);
                let sent = Instant::now();
                let response = client::send(request, &what, &self.meter)?;
                let status = response.status().as_u16();
                if status == 401 || (matches!(status, 400 | 403) && credentials.is_some()) {
                    return Err(self.refused(state));
                }
                let token: Token = body::json(response, &what, TOKEN_MAX, &self.meter)?;
                let text = token.token.or(token.access_token);
                let text = text.ok_or_else(|| wrong("its token server gave none"))?;
                let age = token.expires_in.map_or(TOKEN_AGE, Duration::from_secs);
                // Replaced a little early: a request takes some time, too.
                let age = age.saturating_sub(age.checked_div(10).unwrap_or_default());
                Ok(Granted {
                    header: secret(&format!("Bearer {text}"))
                        .ok_or_else(|| wrong("its token has characters that none has"))?,
                    until: sent.checked_add(age),
                })
            }
        }
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// A request for a token.
fn ask(
    http: &Http,
    realm: &Url,
    service: Option<&str>,
    scope: &str,
    credentials: Option<&Credentials>,
) -> RequestBuilder {
    let mut url = realm.clone();
    if let Some(Credentials::Identity(token)) = credentials {
        // The form's words are spelled like a query's.
        let mut form = realm.clone();
        form.query_pairs_mut()
            .clear()
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", service.unwrap_or_default())
            .append_pair("client_id", "vfsd")
            .append_pair("scope", scope)
            .append_pair("refresh_token", token);
        let form = form.query().unwrap_or_default().to_owned();
        let kind = "application/x-www-form-urlencoded";
        return http.post(url).header("Content-Type", kind).body(form);
    }
    if let Some(service) = service {
        url.query_pairs_mut().append_pair("service", service);
    }
    // Several scopes are several parameters.
    for scope in scope.split(' ') {
        url.query_pairs_mut().append_pair("scope", scope);
    }
    match credentials {
        Some(Credentials::Basic { user, password }) => {
            http.get(url).basic_auth(user, Some(password))
        }
        _ => http.get(url),
    }
}

/// A header that logs do not show.
fn secret(text: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}
