package usernet

// bounds limit how many of each a network holds. Each uses one host descriptor. (A
// query to a second resolver while the first is silent counts as another.)
type bounds struct{ connections, forwarded, mappings, queries, echoes int }

// MaxDescriptors is the largest number of descriptors that a network uses.
const MaxDescriptors = maxConnections + maxForwarded + maxMappings + maxQueries + maxEchoes

// within returns bounds that need at most this many descriptors, all scaled in
// proportion; 0 means MaxDescriptors.
func within(descriptors int) bounds {
	if descriptors <= 0 || descriptors > MaxDescriptors {
		descriptors = MaxDescriptors
	}
	part := func(most int) int { return max(most*descriptors/MaxDescriptors, 1) }
	return bounds{part(maxConnections), part(maxForwarded), part(maxMappings), part(maxQueries), part(maxEchoes)}
}
