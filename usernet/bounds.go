package usernet

// bounds are how many of each a network holds, with one descriptor of the host's
// each. (A query to a second resolver, while the first is silent, counts as another.)
type bounds struct{ connections, forwarded, mappings, queries, echoes int }

// MaxDescriptors is what a network makes use of.
const MaxDescriptors = maxConnections + maxForwarded + maxMappings + maxQueries + maxEchoes

// within returns bounds that take at most so many descriptors, all in proportion; 0
// is MaxDescriptors.
func within(descriptors int) bounds {
	if descriptors <= 0 || descriptors > MaxDescriptors {
		descriptors = MaxDescriptors
	}
	part := func(most int) int { return max(most*descriptors/MaxDescriptors, 1) }
	return bounds{part(maxConnections), part(maxForwarded), part(maxMappings), part(maxQueries), part(maxEchoes)}
}
