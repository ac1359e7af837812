package httpapi

import (
	"context"
	"math"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"seenby/domain"
)

// intakeBurstSeconds is how many seconds' worth of views a tenant may send at once.
const intakeBurstSeconds = 2

// intake bounds the views that this process takes from each tenant. What the gate counts is exact; this only keeps
// one tenant from taking the process from the others, so no process asks another. Safe for concurrent use.
type intake struct {
	buckets sync.Map // domain.TenantID → *bucket; as many as there are tenants
}

// bucket is a token bucket of views.
type bucket struct {
	mu     sync.Mutex // a request's tokens are looked at and taken in one step
	tokens *rate.Limiter
}

// intakeState is a tenant's bucket after a request, as draft-ietf-httpapi-ratelimit-headers tells it.
type intakeState struct {
	burst, left int64         // views
	fullIn      time.Duration // until the bucket is full again
	retryIn     time.Duration // 0: the views were taken
}

// take takes views from the tenant's bucket, all or none. More views than the bucket holds are taken from a full one
// and leave it in debt: they are not refused for ever, and the rate holds in the long run.
func (in *intake) take(tenant domain.TenantID, viewsPerSecond int64, now time.Time, views int) intakeState {
	burst := int(intakeBurstSeconds * viewsPerSecond)
	found, ok := in.buckets.Load(tenant)
	if !ok {
		found, _ = in.buckets.LoadOrStore(tenant, &bucket{tokens: rate.NewLimiter(rate.Limit(viewsPerSecond), burst)})
	}
	b := found.(*bucket) //nolint:forcetypeassert // the map holds nothing else
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.tokens.Burst() != burst { // the tenant's limits have changed
		b.tokens.SetLimitAt(now, rate.Limit(viewsPerSecond))
		b.tokens.SetBurstAt(now, burst)
	}
	refill := func(views float64) time.Duration {
		return time.Duration(views / float64(viewsPerSecond) * float64(time.Second))
	}
	state := intakeState{burst: int64(burst)}
	if need := min(views, burst); b.tokens.AllowN(now, need) {
		for debt := views - need; debt > 0; debt -= burst {
			b.tokens.ReserveN(now, min(debt, burst))
		}
	} else {
		state.retryIn = max(refill(float64(need)-b.tokens.TokensAt(now)), 1)
	}
	left := b.tokens.TokensAt(now)
	state.left, state.fullIn = int64(max(left, 0)), refill(float64(burst)-left)
	return state
}

const (
	headerRateLimit       = "RateLimit"
	headerRateLimitPolicy = "RateLimit-Policy"
	headerRetryAfter      = "Retry-After"
)

var rateLimitHeaders = map[string]string{
	headerRateLimit:       "r: views that may be sent now; t: seconds until all of the quota may be sent again.",
	headerRateLimitPolicy: "q: the most views at once; w: seconds in which as many come back.",
	headerRetryAfter:      "Seconds after which the same request is taken, if no other comes before it.",
}

func (s intakeState) rateLimit() string {
	b := append(make([]byte, 0, 32), `"views";r=`...)
	b = strconv.AppendInt(b, s.left, 10)
	b = append(b, ";t="...)
	return string(strconv.AppendInt(b, seconds(s.fullIn), 10))
}

func (s intakeState) policy() string {
	b := append(make([]byte, 0, 32), `"views";q=`...)
	b = strconv.AppendInt(b, s.burst, 10)
	b = append(b, ";w="...)
	return string(strconv.AppendInt(b, intakeBurstSeconds, 10))
}

// seconds are whole ones, so that a client that waits them has waited long enough.
func seconds(d time.Duration) int64 { return int64(math.Ceil(d.Seconds())) }

// takeIn lets a request of views pass at the tenant's rate, or is the problem to answer.
func (s *server) takeIn(ctx context.Context, views int) (intakeState, error) {
	tenant := tenantOf(ctx)
	limits, ok := s.deps.Tenants.Limits(tenant.ID)
	if !ok {
		return intakeState{}, domain.Errorf(domain.CodeUnauthorized, "The tenant was closed.")
	}
	state := s.intake.take(tenant.ID, limits.IntakeViewsPerSecond, s.deps.Now(), views)
	if state.retryIn == 0 {
		return state, nil
	}
	if s.deps.Metrics.ViewsRateLimited != nil {
		s.deps.Metrics.ViewsRateLimited(views)
	}
	return state, newProblem(domain.CodeRateLimited, "views", "These are more views than the tenant may send to this process now. Send the same request again after Retry-After seconds.").
		with(headerRetryAfter, strconv.FormatInt(seconds(state.retryIn), 10)).
		with(headerRateLimit, state.rateLimit()).
		with(headerRateLimitPolicy, state.policy())
}
