//! The suites against a real registry; one test, so that one registry is started.

use crate::real_registry::RealRegistry;
use crate::support::client;
use crate::{api, client as calls, register};

#[test]
fn a_real_registry_passes_the_same_suites() {
    if let Some(real) = RealRegistry::find() {
        api::apicurio(&real.url);
        calls::use_every_call(&real.url);
        register::judge(&client(&real.url));
    }
}
