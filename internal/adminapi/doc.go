// Package adminapi is the REST interface for operators: tenants, their limits, their API keys. It does over HTTP what
// `seenby tenants` and `seenby keys` do on the command line, by the same commands of package tenancy.
//
// New is its main entry. It stands apart from the api of the apps, on an address and with a key of its own. Every
// write is a whole change of the topic tenants or none (Log.ChangeTenants), decided on what stands on the log at that
// moment; reads read the log, too. Running processes follow within two seconds. Every write but the creation of a
// key can be repeated. Errors are problem+json, as those of httpapi, whose frame it uses; 409 where another operator
// came in between.
package adminapi
