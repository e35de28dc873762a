package gen

import (
	"bytes"
	"fmt"
	"math/rand/v2"
)

var (
	methods = []string{"GET", "POST", "PUT", "DELETE", "PATCH"}
	hosts   = []string{"orders.internal", "pay.example.org", "crm.example.org", "10.4.17.20", "legacy.mainframe.internal"}
	words   = []string{"throttle", "transform", "audit", "enrich", "validate", "route", "cache", "mask", "sign", "retry"}
)

// fill repeats block until the text has about size bytes, and closes it.
func fill(b *bytes.Buffer, size int, end string, block func(n int)) []byte {
	for n := 0; b.Len()+len(end) < size; n++ {
		block(n)
	}
	b.WriteString(end)
	return b.Bytes()
}

func api(rng *rand.Rand, name string, size int) []byte {
	b := &bytes.Buffer{}
	fmt.Fprintf(b, `<?xml version="1.0" encoding="UTF-8"?>
<api xmlns="http://ws.apache.org/ns/synapse" name="admin--%s" context="/%s/v1" version="v1" version-type="context">
`, name, name)
	return fill(b, size, `   <handlers>
      <handler class="org.wso2.carbon.apimgt.gateway.handlers.security.APIAuthenticationHandler"/>
      <handler class="org.wso2.carbon.apimgt.gateway.handlers.throttling.ThrottleHandler">
         <property name="policyKey" value="gov:/apimgt/applicationdata/app-tiers.xml"/>
      </handler>
   </handlers>
</api>
`, func(n int) {
		fmt.Fprintf(b, `   <resource methods="%s" uri-template="/%s/{id}/part%d" faultSequence="fault">
      <inSequence>
         <property name="api.ut.backendRequestTime" expression="get-property('SYSTEM_TIME')"/>
         <sequence key="%s_In"/>
         <send><endpoint key="%s_EP"/></send>
      </inSequence>
      <outSequence><class name="org.wso2.carbon.apimgt.usage.publisher.APIMgtResponseHandler"/><send/></outSequence>
   </resource>
`, pick(rng, methods), pick(rng, words), n, name, name)
	})
}

func sequence(rng *rand.Rand, name string, size int) []byte {
	b := &bytes.Buffer{}
	fmt.Fprintf(b, `<?xml version="1.0" encoding="UTF-8"?>
<sequence xmlns="http://ws.apache.org/ns/synapse" name="%s_In" onError="fault">
`, name)
	return fill(b, size, "</sequence>\n", func(n int) {
		fmt.Fprintf(b, `   <filter source="$ctx:%s%d" regex="%x.*">
      <then><property name="%s" value="%d" scope="axis2"/></then>
      <else><log level="custom"><property name="step" value="%s"/></log></else>
   </filter>
`, pick(rng, words), n, rng.Uint32(), pick(rng, words), rng.IntN(100000), pick(rng, words))
	})
}

func endpoint(rng *rand.Rand, name string, size int) []byte {
	b := &bytes.Buffer{}
	fmt.Fprintf(b, `<?xml version="1.0" encoding="UTF-8"?>
<endpoint xmlns="http://ws.apache.org/ns/synapse" name="%s_EP">
   <loadbalance algorithm="org.apache.synapse.endpoints.algorithms.RoundRobin">
`, name)
	return fill(b, size, "   </loadbalance>\n</endpoint>\n", func(n int) {
		fmt.Fprintf(b, `      <endpoint name="%s_%d">
         <address uri="https://%s:%d/services/%s/%x">
            <timeout><duration>%d</duration><responseAction>fault</responseAction></timeout>
            <suspendOnFailure><initialDuration>%d</initialDuration><progressionFactor>2.0</progressionFactor></suspendOnFailure>
         </address>
      </endpoint>
`, name, n, pick(rng, hosts), 8000+rng.IntN(1000), name, rng.Uint32(), 1000*(1+rng.IntN(60)), 100*rng.IntN(100))
	})
}

func nginx(rng *rand.Rand, name string, size int) []byte {
	b := &bytes.Buffer{}
	fmt.Fprintf(b, `upstream %s {
    least_conn;
    server %s:%d max_fails=3 fail_timeout=10s;
}
server {
    listen 8443 ssl;
    server_name %s.example.org;
`, name, pick(rng, hosts), 8000+rng.IntN(1000), name)
	return fill(b, size, "}\n", func(n int) {
		fmt.Fprintf(b, `    location /%s/%s%d/ {
        proxy_pass http://%s;
        proxy_set_header X-Request-Id $request_id;
        proxy_read_timeout %ds;
        limit_req zone=%s burst=%d nodelay;
    }
`, name, pick(rng, words), n, name, 1+rng.IntN(120), pick(rng, words), rng.IntN(200))
	})
}

func envoy(rng *rand.Rand, name string, size int) []byte {
	b := &bytes.Buffer{}
	fmt.Fprintf(b, `resources:
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: %s
  virtual_hosts:
  - name: %s
    domains: ["%s.example.org"]
    routes:
`, name, name, name)
	return fill(b, size, "", func(n int) {
		fmt.Fprintf(b, `    - match: {prefix: "/%s/%s%d"}
      route:
        cluster: %s_%x
        timeout: %ds
        retry_policy: {retry_on: "5xx,reset", num_retries: %d}
`, name, pick(rng, words), n, name, rng.Uint32(), 1+rng.IntN(60), rng.IntN(5))
	})
}
