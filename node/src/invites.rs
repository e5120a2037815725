//! Invitations that this issuer gave out, in its state directory.
//!
//! ```text
//! invites/<id>        who may join: node, services, until when, and the public half of the token's key
//! invites/<id>.end    how it ended: spent, with what was issued while that may be asked for again, or revoked
//! ```
//!
//! That an invitation ends once is the file system's work: of all who make `<id>.end` exactly one succeeds, whichever
//! process or thread it is. Nothing here lets anybody in; a token cannot be made from it.

use serde::{Deserialize, Serialize};

use crate::enrol::Joined;
use crate::state::{StateDir, StateError};
use crate::token::{InviteId, Token};

/// The invitations in a state directory.
#[derive(Debug, Clone, Copy)]
pub struct Invites<'a>(pub &'a StateDir);

/// What was promised with a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    pub node: String,
    /// In order.
    pub services: Vec<String>,
    /// Seconds since 1970.
    pub not_after: u64,
    /// When it was made, in seconds since 1970.
    pub made_at: u64,
    /// Public half of the token's key.
    pub public_key: [u8; 32],
}

/// How an invitation ended. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "lowercase")]
pub enum End {
    /// A host joined with it.
    Spent {
        at: u64,
        /// From where.
        from: String,
        /// Hash of what it asked for: for [`REPEAT_S`] the same host gets the same answer again.
        wish: [u8; 32],
        /// That answer. Dropped when it may not be given any more.
        joined: Option<Joined>,
    },
    /// An operator took it back.
    Revoked { at: u64 },
}

/// An invitation as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub id: InviteId,
    pub invite: Invite,
    pub end: Option<End>,
}

/// Why invitations could not be read or changed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvitesError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error("invites/{name} is damaged")]
    Damaged {
        name: String,
        source: serde_json::Error,
    },
    #[error("there are {INVITES_MAX} invitations already")]
    TooMany,
}

impl Invite {
    /// What the issuer keeps of a token that it makes at `made_at`.
    pub fn of(token: &Token, made_at: u64) -> Self {
        Self {
            node: token.node.to_string(),
            services: token.services.iter().map(ToString::to_string).collect(),
            not_after: token.not_after,
            made_at,
            public_key: token.public_key(),
        }
    }
}

impl Invites<'_> {
    /// Keeps an invitation, forgets those that ended long before `now`, and answers that may not be given any more.
    pub fn add(&self, id: InviteId, invite: &Invite, now: u64) -> Result<(), InvitesError> {
        self.0.make_directory(DIRECTORY)?;
        let mut all = self.all()?;
        all.retain(|listed| {
            listed.invite.not_after + KEPT_S >= now || self.forget(listed.id).is_err()
        });
        if all.len() >= INVITES_MAX {
            return Err(InvitesError::TooMany);
        }
        for Listed { id, end, .. } in all {
            if matches!(&end, Some(End::Spent { at, .. }) if !may_repeat(*at, now)) {
                self.drop_answer(id, end)?;
            }
        }
        self.0.write(&name(id), &json(invite))?;
        Ok(())
    }

    /// The invitation, if it was made here.
    pub fn find(&self, id: InviteId) -> Result<Option<Invite>, InvitesError> {
        self.read(&name(id))
    }

    /// How it ended, if it did.
    pub fn end(&self, id: InviteId) -> Result<Option<End>, InvitesError> {
        self.read(&end_name(id))
    }

    /// Ends an invitation. Returns whether this ended it; otherwise something else had. Durable when it returns.
    pub fn finish(&self, id: InviteId, end: &End) -> Result<bool, InvitesError> {
        Ok(self.0.create_new(&end_name(id), &json(end))?)
    }

    /// Takes back an invitation that is open, and drops the answer of one that is spent, so that neither is of use to
    /// anyone from now on. Durable when it returns.
    pub fn end_for_good(&self, listed: &Listed, now: u64) -> Result<(), InvitesError> {
        let mut end = listed.end.clone();
        if end.is_none() {
            if self.finish(listed.id, &End::Revoked { at: now })? {
                return Ok(());
            }
            // A host was faster.
            end = self.end(listed.id)?;
        }
        self.drop_answer(listed.id, end)
    }

    fn drop_answer(&self, id: InviteId, end: Option<End>) -> Result<(), InvitesError> {
        if let Some(End::Spent {
            at,
            from,
            wish,
            joined: Some(_),
        }) = end
        {
            let joined = None;
            let end = End::Spent {
                at,
                from,
                wish,
                joined,
            };
            self.0.write(&end_name(id), &json(&end))?;
        }
        Ok(())
    }

    /// All of them, the first to expire first.
    pub fn all(&self) -> Result<Vec<Listed>, InvitesError> {
        let mut all = Vec::new();
        let names = self.0.list(DIRECTORY);
        for id in names.iter().filter_map(|name| InviteId::parse(name).ok()) {
            if let Some(invite) = self.find(id)? {
                let end = self.end(id)?;
                all.push(Listed { id, invite, end });
            }
        }
        all.sort_by_key(|listed| (listed.invite.not_after, listed.id));
        Ok(all)
    }

    /// The invitation first: while only its end is there, nobody can join with it.
    fn forget(&self, id: InviteId) -> Result<(), InvitesError> {
        self.0.remove(&name(id))?;
        self.0.remove(&end_name(id))?;
        Ok(())
    }

    fn read<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<Option<T>, InvitesError> {
        if !self.0.exists(name) {
            return Ok(None);
        }
        let bytes = self.0.read_secret(name)?;
        let read = serde_json::from_slice(&bytes);
        read.map(Some).map_err(|source| InvitesError::Damaged {
            name: name.to_owned(),
            source,
        })
    }
}

/// Whether what was answered at `first` may be answered again at `now`, both in seconds since 1970. A clock that was set
/// back may open this a second time, which gives nothing away: the answer is the same one, for the same keys.
pub fn may_repeat(first: u64, now: u64) -> bool {
    now.abs_diff(first) <= REPEAT_S
}

fn name(id: InviteId) -> String {
    format!("{DIRECTORY}/{id}")
}

fn end_name(id: InviteId) -> String {
    format!("{DIRECTORY}/{id}.end")
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("strings, numbers and bytes can be written")
}

/// Where they are in the state directory.
pub const DIRECTORY: &str = "invites";

/// How long the first answer is given again to the same request: three rounds of a joiner whose answer was lost, with an
/// issuer that was started again in between.
pub const REPEAT_S: u64 = 60;

/// How long an invitation is listed after it expired: to see who joined with it.
const KEPT_S: u64 = 30 * 24 * 60 * 60;

/// A rack a day for a month; each is a file of 200 bytes, and 2 KiB for each certificate while that may be answered again.
const INVITES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        (dir, state)
    }

    fn invite(not_after: u64) -> Invite {
        Invite {
            node: "n2".into(),
            services: vec!["orders".into()],
            not_after,
            made_at: 10,
            public_key: [7; 32],
        }
    }

    fn spent(wish: u8) -> End {
        End::Spent {
            at: 5,
            from: "10.0.0.2:5".into(),
            wish: [wish; 32],
            joined: Some(Joined {
                leaves: vec!["leaf".into()],
                issuer: "intermediate".into(),
                seeds: Vec::new(),
            }),
        }
    }

    #[test]
    fn an_invitation_is_kept_and_ends_once() {
        let (_dir, state) = state();
        let (invites, id) = (Invites(&state), InviteId([1; 16]));
        assert_eq!(invites.find(id).unwrap(), None);
        invites.add(id, &invite(100), 10).unwrap();
        assert_eq!(invites.find(id).unwrap(), Some(invite(100)));
        assert_eq!(invites.end(id).unwrap(), None);
        assert!(invites.finish(id, &spent(1)).unwrap());
        assert!(!invites.finish(id, &spent(2)).unwrap());
        assert!(!invites.finish(id, &End::Revoked { at: 6 }).unwrap());
        assert_eq!(invites.end(id).unwrap(), Some(spent(1)));
    }

    #[test]
    fn of_many_who_end_it_at_once_exactly_one_does() {
        let (_dir, state) = state();
        let id = InviteId([1; 16]);
        Invites(&state).add(id, &invite(100), 10).unwrap();
        let first = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..64)
                .map(|wish| {
                    let state = &state;
                    scope.spawn(move || Invites(state).finish(id, &spent(wish)).unwrap())
                })
                .collect();
            tries
                .into_iter()
                .map(|t| t.join().unwrap())
                .filter(|won| *won)
                .count()
        });
        assert_eq!(first, 1);
        assert!(Invites(&state).end(id).unwrap().is_some());
    }

    #[test]
    fn what_ended_long_ago_is_forgotten_and_the_rest_is_listed() {
        let (_dir, state) = state();
        let invites = Invites(&state);
        invites.add(InviteId([1; 16]), &invite(100), 10).unwrap();
        invites.finish(InviteId([1; 16]), &spent(1)).unwrap();
        invites
            .add(InviteId([2; 16]), &invite(100 + KEPT_S), 200)
            .unwrap();
        assert_eq!(invites.all().unwrap().len(), 2);
        invites
            .add(InviteId([3; 16]), &invite(300 + KEPT_S), 101 + KEPT_S)
            .unwrap();
        let ids: Vec<_> = invites
            .all()
            .unwrap()
            .into_iter()
            .map(|listed| listed.id.0[0])
            .collect();
        assert_eq!(ids, [2, 3]);
        assert_eq!(state.list(DIRECTORY).len(), 2);
    }

    #[test]
    fn an_answer_that_may_not_be_given_again_is_dropped() {
        let (_dir, state) = state();
        let invites = Invites(&state);
        let ids = [1, 2].map(|id| InviteId([id; 16]));
        for id in ids {
            invites.add(id, &invite(1000), 4).unwrap();
        }
        assert!(invites.finish(ids[0], &spent(1)).unwrap());
        let keeps_answer = |id| {
            let end = invites.end(id).unwrap();
            matches!(
                end,
                Some(End::Spent {
                    joined: Some(_),
                    ..
                })
            )
        };
        let add = |now| {
            invites
                .add(InviteId([now as u8; 16]), &invite(1000), now)
                .unwrap()
        };
        add(5 + REPEAT_S);
        assert!(keeps_answer(ids[0]));
        add(6 + REPEAT_S);
        assert!(!keeps_answer(ids[0]));

        // One that is listed as open and spent before it is ended.
        let all = invites.all().unwrap();
        let open = all.iter().find(|listed| listed.id == ids[1]).unwrap();
        assert!(invites.finish(ids[1], &spent(2)).unwrap());
        invites.end_for_good(open, 7).unwrap();
        assert!(!keeps_answer(ids[1]));
        assert!(matches!(
            invites.end(ids[1]).unwrap(),
            Some(End::Spent { .. })
        ));
    }

    #[test]
    fn a_damaged_file_lets_nobody_in() {
        let (_dir, state) = state();
        let (invites, id) = (Invites(&state), InviteId([1; 16]));
        invites.add(id, &invite(100), 10).unwrap();
        for damage in ["", "{", "{\"node\": 1}", "null"] {
            state.write(&name(id), damage.as_bytes()).unwrap();
            assert!(
                matches!(invites.find(id), Err(InvitesError::Damaged { .. })),
                "{damage}"
            );
        }
        invites
            .add(InviteId([2; 16]), &invite(100), 10)
            .unwrap_err();
    }
}
