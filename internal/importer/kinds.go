package importer

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"seenby/domain"
	"seenby/internal/strictjson"
	"seenby/internal/tenancy"
)

// kind is what a line of an import can be.
type kind struct {
	topic domain.Topic // of its events
	// parse makes the event of a line; what is wrong with it is CodeInvalid and names the field.
	parse func(p *parser, it *item) error
}

var kinds = map[string]kind{
	"posts":   {domain.TopicPosts, (*parser).post},
	"views":   {domain.TopicViews, (*parser).view},
	"counts":  {domain.TopicPosts, (*parser).counts},
	"members": {domain.TopicAudiences, (*parser).member},
}

// parser makes events of lines.
type parser struct {
	tenant tenancy.TenantHandle
	now    time.Time // what is later lies in the future
	seed   [32]byte  // of the ids of events
	met    map[string]domain.PersonKey
}

// metMax bounds who is remembered to have been named. Forgetting is harmless: a name is appended again.
const metMax = 200_000

func newParser(tenant tenancy.TenantHandle, id string, now time.Time) *parser {
	return &parser{
		tenant: tenant, now: now, met: map[string]domain.PersonKey{},
		seed: sha256.Sum256([]byte("seenby import v1\x00" + string(tenant.ID) + "\x00" + id)),
	}
}

// eventID is the same for the same line of the same import: a UUID of version 8, whose first bytes are the import's.
func (p *parser) eventID(line int64) (id domain.EventID) {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(p.seed[:], uint64(line))) //nolint:gosec // not negative
	copy(id[:], sum[:])
	copy(id[:importIDBytes], p.seed[:])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

// importIDBytes of an event's id are its import's.
const importIDBytes = 6

// ours tells whether an event's id can be one of this import's.
func (p *parser) ours(id domain.EventID) bool {
	return [importIDBytes]byte(id[:importIDBytes]) == [importIDBytes]byte(p.seed[:importIDBytes])
}

// person is the person key of an app's id; who is met for the first time is named before the event.
func (p *parser) person(it *item, id string) domain.PersonKey {
	if key, known := p.met[id]; known {
		return key
	}
	key := domain.NewPersonKey(p.tenant.Key, domain.PersonKnown, id)
	if len(p.met) >= metMax {
		clear(p.met)
	}
	p.met[strings.Clone(id)] = key
	it.before = append(it.before, domain.PersonNamed{Ref: domain.PersonRef{Tenant: p.tenant.ID, Person: key}, ID: id})
	return key
}

func (p *parser) key(post string) domain.PostKey {
	return domain.PostKey{Tenant: p.tenant.ID, Post: domain.PostID(post)}
}

// unmarshal reads a line strictly: a misspelt field is an error rather than lost.
func unmarshal(text []byte, into any) error {
	err := json.Unmarshal(text, into, json.RejectUnknownMembers(true))
	if err == nil {
		return nil
	}
	invalid, at := strictjson.Problem(err, "line")
	switch {
	case invalid == nil:
		return domain.Errorf(domain.CodeInvalid, "is not valid JSON, at byte %d", at)
	case invalid.Field == "":
		return domain.Errorf(domain.CodeInvalid, "%s", invalid.Message)
	}
	return invalid
}

// required is a field that must be there.
func required[T any](field string, v *T) (T, error) {
	if v == nil {
		var none T
		return none, domain.Invalid(field, "is required")
	}
	return *v, nil
}

func requiredID(field string, v *string) (string, error) {
	id, err := required(field, v)
	if err == nil {
		err = domain.CheckID(field, id)
	}
	return id, err
}

// past is a time that must have been.
func (p *parser) past(field string, v *string) (time.Time, error) {
	text, err := required(field, v)
	if err != nil {
		return time.Time{}, err
	}
	at, err := domain.ParseTime(field, text)
	if err == nil && at.After(p.now) {
		err = domain.Invalid(field, "lies in the future: it is %s", p.now.UTC().Format(time.RFC3339))
	}
	return at, err
}

func (p *parser) post(it *item) error {
	var in struct {
		ID          *string `json:"id"`
		Author      *string `json:"author"`
		Body        *string `json:"body"`
		Audience    *string `json:"audience"`
		PublishedAt *string `json:"published_at"`
	}
	if err := unmarshal(it.text, &in); err != nil {
		return err
	}
	id, err := requiredID("id", in.ID)
	if err != nil {
		return err
	}
	author, err := requiredID("author", in.Author)
	if err != nil {
		return err
	}
	e := domain.PostPublished{PostRef: p.key(id), EventID: p.eventID(it.line), Audience: domain.AudienceEveryone}
	if in.Audience != nil {
		e.Audience = domain.Audience(*in.Audience)
		if err := e.Audience.Check(); err != nil {
			return err
		}
	}
	if in.PublishedAt != nil {
		if e.PublishedAt, err = domain.ParseTime("published_at", *in.PublishedAt); err != nil {
			return err
		}
	}
	if in.Body != nil && *in.Body != "" {
		if err := domain.CheckBody(*in.Body); err != nil {
			return err
		}
		e.Body = domain.NewDigest(p.tenant.Key, *in.Body)
		it.before = append(it.before, domain.PostBodyWritten{PostRef: e.PostRef, EventID: e.EventID, Text: *in.Body})
	}
	e.Author = p.person(it, author) // the last: a line that is rejected names nobody
	it.event = e
	return nil
}

// countMax is what every reader of JSON holds exactly, and sums of it fit.
const countMax = 1 << 53

func (p *parser) counts(it *item) error {
	var in struct {
		Post          *string `json:"post"`
		Impressions   *int64  `json:"impressions"`
		UniqueViewers *int64  `json:"unique_viewers"`
		AsOf          *string `json:"as_of"`
	}
	if err := unmarshal(it.text, &in); err != nil {
		return err
	}
	post, err := requiredID("post", in.Post)
	if err != nil {
		return err
	}
	e := domain.CountsImported{PostRef: p.key(post), EventID: p.eventID(it.line)}
	if e.Impressions, err = required("impressions", in.Impressions); err != nil {
		return err
	}
	if in.UniqueViewers != nil {
		e.UniqueViewers = *in.UniqueViewers
	}
	switch {
	case e.Impressions < 0 || e.Impressions > countMax:
		return domain.Invalid("impressions", "must be 0 to %d", int64(countMax))
	case e.UniqueViewers < 0 || e.UniqueViewers > e.Impressions:
		return domain.Invalid("unique_viewers", "must be 0 to impressions")
	}
	if e.AsOf, err = p.past("as_of", in.AsOf); err != nil {
		return err
	}
	it.event = e
	return nil
}

func (p *parser) member(it *item) error {
	var in struct {
		Audience *string `json:"audience"`
		Viewer   *string `json:"viewer"`
	}
	if err := unmarshal(it.text, &in); err != nil {
		return err
	}
	audience, err := requiredID("audience", in.Audience)
	if err != nil {
		return err
	}
	viewer, err := requiredID("viewer", in.Viewer)
	if err != nil {
		return err
	}
	it.event = domain.AudienceMemberAdded{Tenant: p.tenant.ID, Audience: audience, Person: p.person(it, viewer), EventID: p.eventID(it.line)}
	return nil
}

type viewContext struct {
	App          *string  `json:"app"`
	Surface      *string  `json:"surface"`
	DwellMS      *int64   `json:"dwell_ms"`
	VisibleRatio *float64 `json:"visible_ratio"`
}

func (c *viewContext) context() *domain.ViewContext {
	if c == nil {
		return nil
	}
	out := &domain.ViewContext{DwellMS: c.DwellMS, VisibleRatio: c.VisibleRatio}
	if c.App != nil {
		out.App = *c.App
	}
	if c.Surface != nil {
		out.Surface = *c.Surface
	}
	return out
}

func (p *parser) view(it *item) error {
	var in struct {
		ID        *string      `json:"id"`
		Post      *string      `json:"post"`
		Viewer    *string      `json:"viewer"`
		Anonymous *string      `json:"anonymous"`
		ViewedAt  *string      `json:"viewed_at"`
		Context   *viewContext `json:"context"`
	}
	if err := unmarshal(it.text, &in); err != nil {
		return err
	}
	post, err := requiredID("post", in.Post)
	if err != nil {
		return err
	}
	field, who := "viewer", in.Viewer
	if in.Anonymous != nil {
		if in.Viewer != nil {
			return domain.Invalid("anonymous", "cannot stand beside viewer")
		}
		field, who = "anonymous", in.Anonymous
	}
	if who == nil {
		return domain.Invalid("viewer", "is required, or anonymous")
	}
	if err := domain.CheckID(field, *who); err != nil {
		return err
	}
	e := domain.ViewReported{Post: domain.PostID(post), Anonymous: in.Anonymous != nil, Imported: true, Context: in.Context.context()}
	// Without its time an old view would be one of today.
	if e.ViewedAt, err = p.past("viewed_at", in.ViewedAt); err != nil {
		return err
	}
	e.ViewID = domain.ViewID{1} // stands in for the derived one, which needs the person
	if in.ID != nil {
		if e.ViewID, err = domain.ParseViewID(*in.ID); err != nil {
			return err
		}
	}
	if err := e.Check(); err != nil {
		return err
	}
	e.Viewer.Tenant = p.tenant.ID
	if e.Anonymous {
		e.Viewer.Person = domain.NewPersonKey(p.tenant.Key, domain.PersonAnonymous, *who)
	} else {
		e.Viewer.Person = p.person(it, *who)
	}
	if in.ID == nil {
		e.ViewID = domain.DeriveViewID(e.Viewer.Person, e.Post, e.ViewedAt)
	}
	it.event = e
	return nil
}
