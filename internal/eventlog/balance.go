package eventlog

import (
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// directBalancer shares partitions out as the cooperative balancer of the client does, but gives one that moves to its
// new member at once. The client's own withholds it until the old member has given it up and all have joined again, of
// which the others hear by their next heartbeat: for so long it would stand still, whenever a process starts. Two may
// believe in a partition meanwhile, which does no harm, since groups only assign (docs/adr/0007): positions and
// transactional ids decide who writes. Its name and what members tell each other are the cooperative balancer's, so that
// both may be in one group.
type directBalancer struct{ kgo.GroupBalancer }

func newDirectBalancer() kgo.GroupBalancer { return directBalancer{kgo.CooperativeStickyBalancer()} }

// MemberBalancer implements kgo.GroupBalancer: that of the balancer for members that give up everything first, whose plans
// are final.
func (directBalancer) MemberBalancer(members []kmsg.JoinGroupResponseMember) (kgo.GroupMemberBalancer, map[string]struct{}, error) {
	return kgo.StickyBalancer().MemberBalancer(members)
}
