//! The laws of shares: right in the sum, the same for one user, and moved only where weight moved.

use http::header::COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use crate::route::split::{Part, Point, Share, Split, Sticky, Subset};

fn subset(version: usize) -> Subset {
    Subset::new([("version".to_owned(), format!("v{version}"))].into())
}

/// Parts v0, v1, … with these shares in hundredths of a percent.
fn split(shares: &[u16]) -> Split {
    let parts = shares.iter().enumerate().map(|(version, share)| Part {
        to: subset(version),
        share: Share(*share),
    });
    Split {
        parts: parts.collect(),
        sticky: Some(Sticky::Header(HeaderName::from_static("x-user"))),
    }
}

fn user(name: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("x-user", HeaderValue::from_str(name).unwrap());
    headers
}

fn version_of(split: &Split, name: &str) -> Subset {
    let point = split.point("cart", Some(&user(name)), &mut fastrand::Rng::new());
    split.choose(point, |_| true).clone()
}

/// Shares of a few parts that sum up to the whole.
fn whole_shares() -> impl Strategy<Value = Vec<u16>> {
    prop::collection::vec(0..=100_u16, 2..6).prop_map(|weights| {
        let sum: u32 = weights
            .iter()
            .map(|weight| u32::from(*weight))
            .sum::<u32>()
            .max(1);
        let mut shares: Vec<u16> = weights
            .iter()
            .map(|weight| (u32::from(*weight) * 10_000 / sum) as u16)
            .collect();
        let rest = 10_000 - shares.iter().sum::<u16>();
        shares[0] += rest;
        shares
    })
}

proptest! {
    #[test]
    fn a_user_keeps_its_version(shares in whole_shares(), name in "[a-z0-9]{1,20}") {
        let split = split(&shares);
        let first = version_of(&split, &name);
        for _ in 0..3 {
            prop_assert_eq!(version_of(&split, &name), first.clone());
        }
    }

    /// Weight that goes from one part to its neighbour takes exactly its users along, in one direction.
    #[test]
    fn only_the_moved_share_moves(
        shares in whole_shares(),
        at in 0..16_usize,
        moved in 0..10_000_u16,
        names in prop::collection::vec("[a-z0-9]{1,12}", 200),
    ) {
        let from = at % (shares.len() - 1);
        let mut after = shares.clone();
        let moved = moved.min(after[from]);
        after[from] -= moved;
        after[from + 1] += moved;
        let (before, after) = (split(&shares), split(&after));
        for name in names {
            let (old, new) = (version_of(&before, &name), version_of(&after, &name));
            prop_assert!(old == new || (old == subset(from) && new == subset(from + 1)), "{old} -> {new}");
        }
    }

    #[test]
    fn nobody_goes_where_the_weight_is_zero(shares in whole_shares(), seed: u64) {
        let split = split(&shares);
        let point = Point::random(&mut fastrand::Rng::with_seed(seed));
        let chosen = split.choose(point, |_| true);
        let part = split.parts.iter().find(|part| part.to == *chosen).unwrap();
        prop_assert!(part.share > Share::NONE);
    }

    /// A part without usable instances hands its callers to the others, and nobody else notices.
    #[test]
    fn only_callers_of_a_lost_part_move(
        shares in whole_shares(),
        lost in 0..6_usize,
        names in prop::collection::vec("[a-z0-9]{1,12}", 50),
    ) {
        let (split, lost) = (split(&shares), subset(lost % shares.len()));
        for name in names {
            let headers = user(&name);
            let point = split.point("cart", Some(&headers), &mut fastrand::Rng::new());
            let (before, after) = (split.choose(point, |_| true), split.choose(point, |to| *to != lost));
            let is_only = split.parts.iter().all(|part| part.share == Share::NONE || part.to == lost);
            if *before != lost || is_only {
                prop_assert_eq!(before, after);
            } else {
                prop_assert!(*after != lost);
                let part = split.parts.iter().find(|part| part.to == *after).unwrap();
                prop_assert!(part.share > Share::NONE);
            }
        }
    }
}

/// Of `CALLS` draws each part gets its share, within five standard deviations.
fn check_shares(split: &Split, point: impl Fn(u32) -> Point) {
    const CALLS: u32 = 40_000;
    for part in &split.parts {
        let got = (0..CALLS)
            .filter(|call| split.choose(point(*call), |_| true) == &part.to)
            .count();
        let share = f64::from(part.share.0) / 10_000.0;
        let (mean, deviation) = (
            f64::from(CALLS) * share,
            (f64::from(CALLS) * share * (1.0 - share)).sqrt(),
        );
        assert!(
            (got as f64 - mean).abs() <= 5.0 * deviation,
            "{}: {got} of {CALLS}",
            part.share
        );
    }
}

#[test]
fn shares_come_out_by_chance_and_by_user() {
    for shares in [
        &[9_000, 1_000][..],
        &[5_000, 3_000, 2_000],
        &[10_000, 0],
        &[9_999, 1],
        &[0, 0, 10_000],
    ] {
        let split = split(shares);
        check_shares(&split, |call| {
            Point::random(&mut fastrand::Rng::with_seed(call.into()))
        });
        // Names as alike as users' numbers are.
        check_shares(&split, |call| {
            split.point(
                "cart",
                Some(&user(&call.to_string())),
                &mut fastrand::Rng::new(),
            )
        });
    }
}

/// Written down, so that no later version moves users by accident.
#[test]
fn points_stay_what_they_are() {
    let halves = split(&[5_000, 5_000]);
    let versions: Vec<_> = ["ada", "bob", "eve", "joe", "kim", "lea", "max", "zoe"]
        .iter()
        .map(|name| version_of(&halves, name).to_string())
        .collect();
    assert_eq!(
        versions.join(" "),
        "version=v0 version=v0 version=v0 version=v0 version=v1 version=v1 version=v1 version=v0"
    );
}

#[test]
fn services_do_not_share_their_canaries() {
    let split = split(&[5_000, 5_000]);
    let names: Vec<_> = (0..1_000).map(|name| user(&name.to_string())).collect();
    let same = names.iter().filter(|headers| {
        let of = |service| {
            split.choose(
                split.point(service, Some(headers), &mut fastrand::Rng::new()),
                |_| true,
            )
        };
        of("cart") == of("shop")
    });
    let same = same.count();
    assert!((400..=600).contains(&same), "{same}");
}

#[test]
fn users_are_told_apart_by_cookie() {
    let split = Split {
        sticky: Some(Sticky::Cookie("id".to_owned())),
        ..split(&[5_000, 5_000])
    };
    let point = |cookies: &[&str]| {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(COOKIE, HeaderValue::from_str(cookie).unwrap());
        }
        split.point("cart", Some(&headers), &mut fastrand::Rng::with_seed(1))
    };
    let ada = point(&["id=ada"]);
    for same in [
        &["a=b; id=ada"][..],
        &["a=b", "id=ada"],
        &["a=b;id=ada ; c=d"],
        &["xid=eve; id=ada"],
        &["id=ada; id=eve"],
    ] {
        assert_eq!(point(same), ada, "{same:?}");
    }
    let random = split.point("cart", None, &mut fastrand::Rng::with_seed(1));
    for none in [
        &[][..],
        &["id="],
        &["ID=ada"],
        &["idx=ada"],
        &["id"],
        &["x id=ada"],
    ] {
        assert_eq!(point(none), random, "{none:?}");
    }
}

#[test]
fn shares_of_mirrors_and_faults_come_out() {
    let taken = |share: Share| {
        let mut rng = fastrand::Rng::with_seed(7);
        (0..10_000)
            .filter(|_| share.takes(Point::random(&mut rng)))
            .count()
    };
    assert_eq!((taken(Share::NONE), taken(Share::WHOLE)), (0, 10_000));
    assert!((800..=1_200).contains(&taken(Share(1_000))));
}
