async function performHealthCheck() {
  try {
    const response = await fetch('/health');
    const health = await response.json();
    
    console.log('=== Health Check Results ===');
    console.log(`Overall Status: ${health.status}`);
    console.log(`Uptime: ${Math.floor(health.uptime / 60)} minutes`);
    
    // Check individual services
    Object.entries(health.services).forEach(([service, status]) => {
      const icon = status === 'up' ? '✅' : '❌';
      console.log(`${icon} ${service}: ${status}`);
    });
    
    // Performance metrics
    if (health.performance) {
      console.log('\n=== Performance Metrics ===');
      console.log(`Requests/min: ${health.performance.requestsPerMinute}`);
      console.log(`Avg Response Time: ${health.performance.averageResponseTime}ms`);
      console.log(`Error Rate: ${(health.performance.errorRate * 100).toFixed(2)}%`);
    }
    
    // System metrics
    if (health.system) {
      console.log('\n=== System Metrics ===');
      console.log(`Memory: ${health.system.memory.usedMB}MB / ${health.system.memory.totalMB}MB`);
      console.log(`CPU Usage: ${health.system.cpu.usage}%`);
    }
    
    return health.status === 'healthy';
  } catch (error) {
    console.error('Health check failed:', error);
    return false;
  }
}

// Monitor health every 5 minutes
setInterval(async () => {
  const isHealthy = await performHealthCheck();
  if (!isHealthy) {
    console.error('⚠️  Service is unhealthy!');
    // Send alert, restart service, etc.
  }
}, 5 * 60 * 1000);
