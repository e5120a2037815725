//! All routes in force, indexed by service.

use std::collections::BTreeMap;
use std::sync::Arc;

use starling_gossip::ServiceName;

use super::Route;

/// One snapshot; replaced whole. A route of this host's own files stands before the mesh's for the same service: whoever
/// runs a host can try a route there first, and nobody else is concerned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table(BTreeMap<ServiceName, Declared>);

/// What was declared for one service, by whom. At least one of them did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Declared {
    local: Option<Arc<Route>>,
    document: Option<Arc<Route>>,
}

/// The one route of a service that counts on this host.
#[derive(Debug, Clone, Copy)]
pub struct InForce<'t> {
    pub route: &'t Arc<Route>,
    pub origin: Origin,
    /// The mesh's route, while this host has its own.
    pub replaced: Option<&'t Arc<Route>>,
}

/// Who declared a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This host's own files: for callers of this host.
    Local,
    /// An operator's document: for callers everywhere.
    Document,
}

impl Origin {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Document => "document",
        }
    }
}

impl Table {
    /// The same but for this host's own routes.
    pub fn with_local(&self, local: &[Route]) -> Self {
        let mut table = self.clone();
        table
            .0
            .values_mut()
            .for_each(|declared| declared.local = None);
        for route in local {
            let declared = table.0.entry(route.service.clone()).or_default();
            declared.local = Some(Arc::new(route.clone()));
        }
        table.without_empty()
    }

    /// The same but for the routes of documents.
    pub fn with_documents(&self, documents: &[Arc<Route>]) -> Self {
        let mut table = self.clone();
        table
            .0
            .values_mut()
            .for_each(|declared| declared.document = None);
        for route in documents {
            let declared = table.0.entry(route.service.clone()).or_default();
            declared.document = Some(route.clone());
        }
        table.without_empty()
    }

    pub fn get(&self, service: &str) -> Option<InForce<'_>> {
        self.0.get(service).and_then(Declared::in_force)
    }

    /// Every service that has a route, in order of names.
    pub fn iter(&self) -> impl Iterator<Item = InForce<'_>> {
        self.0.values().filter_map(Declared::in_force)
    }

    fn without_empty(mut self) -> Self {
        self.0.retain(|_, declared| declared.in_force().is_some());
        self
    }
}

impl Declared {
    fn in_force(&self) -> Option<InForce<'_>> {
        let (route, origin) = match (&self.local, &self.document) {
            (Some(local), _) => (local, Origin::Local),
            (None, Some(document)) => (document, Origin::Document),
            (None, None) => return None,
        };
        Some(InForce {
            route,
            origin,
            replaced: self.local.as_ref().and(self.document.as_ref()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::route::Document;

    fn route(service: &str, version: &str) -> Route {
        let body = format!("[[rule]]\nto = {{ version = '{version}' }}");
        let service = ServiceName::parse(service).unwrap();
        let document = Document::parse_as(Path::new("route"), &body).unwrap();
        document.of(service)
    }

    #[test]
    fn a_hosts_own_route_stands_before_the_meshs() {
        let documents = [route("cart", "v1"), route("shop", "v1")].map(Arc::new);
        let local = [route("cart", "v2"), route("db", "v2")];
        let one = Table::default()
            .with_documents(&documents)
            .with_local(&local);
        let other = Table::default()
            .with_local(&local)
            .with_documents(&documents);
        assert_eq!(one, other);
        let told: Vec<_> = one
            .iter()
            .map(|entry| {
                (
                    entry.route.service.as_str(),
                    entry.origin,
                    entry.replaced.is_some(),
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                ("cart", Origin::Local, true),
                ("db", Origin::Local, false),
                ("shop", Origin::Document, false)
            ]
        );
        // Without it, the mesh's counts again.
        let table = one.with_local(&[]);
        assert_eq!(
            table.get("cart").map(|entry| entry.origin),
            Some(Origin::Document)
        );
        assert!(table.get("db").is_none() && table.with_documents(&[]).iter().next().is_none());
    }
}
