package projections

import "seenby/domain"

// PostKeyArgs are keys as two parallel array arguments, @tenants and @posts.
func PostKeyArgs(keys []domain.PostKey) (tenants, posts []string) {
	tenants, posts = make([]string, len(keys)), make([]string, len(keys))
	for i, k := range keys {
		tenants[i], posts[i] = string(k.Tenant), string(k.Post)
	}
	return tenants, posts
}
