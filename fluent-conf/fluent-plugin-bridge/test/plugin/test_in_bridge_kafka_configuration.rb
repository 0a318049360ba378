# frozen_string_literal: true

require_relative '../helper'
require 'tempfile'
require 'fluent/test/driver/input'
require 'fluent/test/log'
require 'fluent/plugin/in_bridge_kafka'
require 'fluent/plugin/out_bridge'
require 'fluent/plugin/out_bridge_kafka'

# No broker is needed to find out that a configuration is wrong.
class BridgeKafkaInputConfigurationTest < Test::Unit::TestCase
  NEEDED = { 'brokers' => 'localhost:1', 'topics' => 'ad', 'consumer_group' => 'g' }.freeze

  setup { Fluent::Test.setup }

  def configure(changes = {}, sections = '')
    parameters = NEEDED.merge(changes).compact.map { |name, value| "#{name} #{value}" }.join("\n")
    Fluent::Test::Driver::Input.new(Fluent::Plugin::BridgeKafkaInput).configure("#{parameters}\n#{sections}").instance
  end

  wrong = {
    'no topics' => [{ 'topics' => nil }, /'topics' parameter is required/],
    'empty topics' => [{ 'topics' => '' }, /topics is empty: name at least one/],
    'no group' => [{ 'consumer_group' => nil }, /'consumer_group' parameter is required/],
    'empty group' => [{ 'consumer_group' => '' }, /consumer_group is empty: name the group/],
    'no brokers' => [{ 'brokers' => '' }, /brokers is empty: name at least one/],
    'no threads' => [{ 'threads' => '0' }, /threads must be 1 or more/],
    'no events' => [{ 'batch_events' => '0' }, /batch_events must be 1 or more/],
    'no bytes' => [{ 'batch_bytes' => '0' }, /batch_bytes must be 1 or more/],
    'negative wait' => [{ 'batch_wait' => '-1' }, /batch_wait must not be negative/],
    'no timeout' => [{ 'transaction_timeout' => '0' }, /transaction_timeout must be more than 0/],
    'unknown delivery' => [{ 'delivery' => 'at_most_once' }, /valid options are exactly_once,at_least_once but got at_most_once/],
    'two fields of one name' => [{ 'key_field' => 'message' }, /message is the name of several fields/],
    'unknown setting' => [{ 'rdkafka_options' => '{"nope":1}' }, /nope: No such configuration property/],
    'wrong value' => [{ 'consumer_options' => '{"fetch.wait.max.ms":"soon"}' }, /fetch\.wait\.max\.ms: Invalid value/],
    'unknown setting of producers' => [{ 'producer_options' => '{"nope":1}' }, /nope: No such configuration property/],
    'settings that do not go together' => [{ 'session_timeout' => '500' }, /Kafka consumer: .*max\.poll\.interval\.ms/],
    'a timeout over the transaction' => [{ 'producer_options' => '{"message.timeout.ms":70000}' },
                                         /Kafka producer: .*message\.timeout\.ms/],
    'commits by librdkafka' => [{ 'consumer_options' => '{"enable.auto.commit":true}' }, /enable\.auto\.commit must stay false/],
    'uncommitted reads' => [{ 'consumer_options' => '{"isolation.level":"read_uncommitted"}' },
                            /isolation\.level must stay read_committed/],
    'no start' => [{ 'consumer_options' => '{"auto.offset.reset":"error"}' }, /auto\.offset\.reset error: use earliest or latest/],
    'id of transactions' => [{ 'producer_options' => '{"transactional.id":"t"}' },
                             /transactional\.id is set by this input: use `transactional_id`/],
    'user alone' => [{ 'username' => 'u' }, /username and password go together/],
    'password alone' => [{ 'password' => 'p' }, /username and password go together/],
    'certificate alone' => [{ 'ssl_client_cert' => '/nowhere.pem' }, /ssl_client_cert and ssl_client_cert_key go together/],
    'no such authority' => [{ 'ssl_ca_cert' => '/nowhere.pem' }, %r{ssl_ca_cert: /nowhere\.pem cannot be read}],
    'no such certificate' => [{ 'ssl_client_cert' => '/nowhere.pem', 'ssl_client_cert_key' => '/nowhere.key' },
                              /ssl\.certificate\.location/],
    'SASL without a user' => [{ 'security_protocol' => 'sasl_ssl' }, /needs a username and a password/],
    'TLS files without TLS' => [{ 'security_protocol' => 'plaintext', 'ssl_ca_cert' => __FILE__ }, /is not encrypted/],
    'unknown mechanism' => [{ 'sasl_mechanism' => 'MAGIC' }, /MAGIC/]
  }
  data(wrong)
  test 'a mistake is an error that says what to do' do |(changes, message)|
    assert_match(message, assert_raise(Fluent::ConfigError) { configure(changes) }.message)
  end

  test 'a wrong authority is an error' do
    Tempfile.create('authority') do |file|
      file.write('no certificate')
      file.close
      assert_match(/ssl\.ca\.pem/, assert_raise(Fluent::ConfigError) { configure('ssl_ca_cert' => file.path) }.message)
    end
  end

  right = {
    'the least' => {},
    'uncommitted reads, at least once' => { 'delivery' => 'at_least_once',
                                            'consumer_options' => '{"isolation.level":"read_uncommitted"}' },
    'new protocol' => { 'consumer_options' => '{"group.protocol":"consumer"}' },
    'what is fixed, said again' => { 'rdkafka_options' => '{"enable.auto.commit":"false"}' },
    'SCRAM' => { 'username' => 'u', 'password' => 'p', 'scram_mechanism' => 'sha512' },
    'PLAIN without TLS' => { 'username' => 'u', 'password' => 'p', 'sasl_over_ssl' => 'false' }
  }
  data(right)
  test 'no mistake is none' do |changes|
    assert_nothing_raised { configure(changes) }
  end

  test 'settings reach librdkafka, the nearest wins' do
    plugin = configure('rdkafka_options' => '{"fetch.wait.max.ms":7,"linger.ms":3}', 'consumer_options' => '{"fetch.wait.max.ms":9}',
                       'producer_options' => '{"linger.ms":4}', 'session_timeout' => '20', 'group_instance_id' => 'me')
    consumer = plugin.send(:options_of_consumer, 1)
    producer = plugin.send(:options_of_producer, 1)
    assert_equal %w[9 20000 me-0-1], consumer.values_at('fetch.wait.max.ms', 'session.timeout.ms', 'group.instance.id').map(&:to_s)
    assert_equal %w[4 60000], producer.values_at('linger.ms', 'transaction.timeout.ms').map(&:to_s)
  end

  test 'inputs of one host have different transactional ids' do
    ids = [{}, { 'topics' => 'b' }, { 'consumer_group' => 'h' }, { '@id' => 'one' }, { '@id' => 'two' }].map do |changes|
      configure(changes).send(:options_of_producer, 0).fetch('transactional.id')
    end
    assert_equal ids.uniq, ids
  end

  # What Fluentd makes of a whole configuration.
  def configure_all(conf, delivery: 'exactly_once', source: '')
    source = "<source>\n@type bridge_kafka\nbrokers localhost:1\ntopics ad\nconsumer_group g\ndelivery #{delivery}\n#{source}\n</source>\n"
    Fluent::Engine.root_agent.configure(Fluent::Config.parse(source + conf, '(test)', '', true))
  end

  FILE = "@type file\npath /tmp/nowhere/never\n<buffer>\n@type memory\n</buffer>"
  BRIDGE = "@type bridge\n@label @BACK\naddress unix:/nowhere.sock\n<buffer>\n@type memory\n</buffer>"
  NULL = '@type null'
  COPY = "@type copy\n<store>\n@type null\n</store>\n<store>\n#{FILE}\n</store>".freeze
  RELABEL = "@type relabel\n@label @B"
  RETAG = "@type rewrite_tag_filter\n@label @B\n<rule>\nkey a\npattern /./\ntag b\n</rule>"
  def self.match(pattern, output) = "<match #{pattern}>\n#{output}\n</match>\n"
  PYTHON = "<filter **>\n@type bridge\naddress unix:/nowhere.sock\n</filter>\n"
  ERROR = "<label @ERROR>\n#{match('**', FILE)}</label>".freeze

  refused = {
    'a buffer' => [match('ad', FILE), /cannot go through a buffer, and file has one.*at_least_once/],
    'a named one' => [match('ad', "@id late\n#{FILE}"), /file \(late\) has one/],
    'a buffer in a copy' => [match('**', COPY), /and file has one/],
    'a buffer behind a label' => [match('ad', RELABEL) + "<label @B>\n#{match('**', FILE)}</label>", /and file has one/],
    'a buffer behind another tag' => [match('ad', RETAG) + "<label @B>\n#{match('**', FILE)}</label>", /and file has one/],
    'a buffer behind other tags of the root' => [match('ad', RETAG.sub("@label @B\n", '')) + match('b', FILE), /and file has one/],
    'a buffer behind the output to the sidecar' => [match('ad', BRIDGE) + "<label @BACK>\n#{match('**', NULL)}</label>",
                                                    /and bridge has one/],
    'a buffer for error events' => [match('ad', NULL) + match('**', FILE), /and file has one/],
    'a buffer for Kafka' => [match('**', "@type bridge_kafka\nbrokers localhost:1\ntopic o\n<buffer>\n@type memory\n</buffer>"),
                             /and bridge_kafka has one/],
    'other brokers' => [match('**', "@type bridge_kafka\nbrokers localhost:2\ntopic o"),
                        /has the brokers localhost:2.*localhost:1.*take `brokers` out/],
    'other brokers, at least once' => [match('**', "@type bridge_kafka\nbrokers localhost:2\ntopic o"), /has the brokers localhost:2/,
                                       { delivery: 'at_least_once' }],
    'no match' => [match('other.**', NULL), /no <match> takes the tag ad: Fluentd would drop the events/],
    'no match at all' => ['', /no <match> takes the tag ad/],
    'no match in the label' => ["<label @L>\n#{match('other', NULL)}</label>", /no <match> in <label @L> takes the tag ad/,
                                { source: '@label @L' }],
    'a buffer in the label under another tag' => ["<label @L>\n#{match('ad', NULL)}#{match('x', FILE)}</label>",
                                                  /and file in <label @L> has one/, { source: '@label @L' }],
    'a buffer for a tag that a function may give' => [PYTHON + match('{ad,error.ad}', NULL) + match('x', FILE), /and file has one/],
    'a buffer for errors' => [match('**', NULL) + ERROR, /and file in <label @ERROR> has one/],
    'other brokers for errors' => [match('**', NULL) + ERROR.sub(FILE, "@type bridge_kafka\nbrokers localhost:2\ntopic o"),
                                   /has the brokers localhost:2/],
    'a buffer for what a regular expression matches' => [match('ad', NULL) + match('error.**', NULL) + match('b', FILE), /and file has one/,
                                                         { source: 'topics ad,^b' }]
  }
  data(refused)
  test 'a pipeline that would lose or double events is refused' do |(conf, message, options)|
    assert_match(message, assert_raise(Fluent::ConfigError) { configure_all(conf, **options) }.message)
  end

  taken = {
    'no buffer' => match('ad', NULL) + match('**', NULL),
    'a buffer that it does not reach' => match('{ad,error.ad}', NULL) + match('**', FILE),
    'a function for other tags' => PYTHON.sub('**', 'x') + match('{ad,error.ad}', NULL) + match('**', FILE),
    'no buffer for Kafka, no brokers' => match('**', "@type bridge_kafka\ntopic o"),
    'a circle' => match('**', RELABEL) + "<label @B>\n#{match('b', RELABEL)}#{match('**', NULL)}</label>"
  }
  data(taken)
  test 'a pipeline that holds is taken' do |conf|
    assert_nothing_raised { configure_all(conf) }
  end

  PARSE = "<parse>\n@type none\n</parse>"
  warned = {
    'a memory buffer' => [match('**', FILE), /file buffers in memory: .*a kill loses them/, { delivery: 'at_least_once' }],
    'no buffer' => [match('**', NULL), nil],
    'a memory buffer for errors' => [match('**', NULL) + ERROR, /file buffers in memory: .*a kill loses them/,
                                     { delivery: 'at_least_once' }],
    'parsing without a place for errors' => [match('**', NULL), /no <label @ERROR>: a payload that cannot be parsed/, { source: PARSE }],
    'parsing with one' => [match('**', NULL) + ERROR.sub(FILE, NULL), nil, { source: PARSE }]
  }
  data(warned)
  test 'what may surprise is warned of' do |(conf, message, options)|
    configure_all(conf, **options)
    lines = Fluent::Engine.root_agent.inputs.first.log.out.logs.grep(/\[warn\]/).grep_v(/default timekey/)
    assert_equal message ? 1 : 0, lines.size, lines.join
    assert_match message, lines.first if message
  end
end
