// Package importer brings into the log what another system knows: posts, views, counts and members, a JSON object a line.
//
// Run is its main function. It reads the lines, checks each as the api checks its requests, appends the events of the good
// ones and writes the others, with the reason, to a file that can be mended and imported again.
//
// # An import happens once
//
// An import has an id: what it is of, and its name or the SHA-256 of its content. How far it is stands on the topic
// tenants, so that the same import goes on where it was, or does nothing once it is finished, whenever and wherever it is
// run again. The record says how many lines are done with, with their digest, so that another content under the same name
// is refused. A process that is killed leaves lines in the log that no record tells of; the record says from where on they
// may stand, and whoever goes on reads the log from there to its end before it appends anything. Events of posts, counts and
// members have ids made of the import's id and the line, so that a second one changes nothing anyway.
//
// # How it fails
//
// A bad line is no error: it is counted and named. Errors are CodeConflict where another process has taken the import over
// or the content is another one, CodeUnavailable while Kafka or PostgreSQL is away for longer than it waits. Run it again.
package importer
